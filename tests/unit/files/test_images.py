"""Thumbnails and conversions are upright, in sRGB, without metadata, and the same bytes each time."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageCms, ImageStat

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
from millpond.tasks.files.contract import ConvertImage, ImageFormat, ImageResult, Thumbnail
from millpond.tasks.files.images import convert_image, make_thumbnail
from millpond.tasks.files.storage import Storage

Names = Callable[[], list[str]]
MakeImage = Callable[..., ImageResult]
ORIENTATION, GPS = 0x0112, 0x8825
RED, BLUE = (220, 40, 40), (40, 60, 200)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def colour(image: Image.Image, box: tuple[int, int, int, int]) -> list[float]:
    return ImageStat.Stat(image.convert("RGB").crop(box)).mean


def is_near(found: list[float], wanted: tuple[int, int, int], within: float = 45) -> bool:
    return all(abs(a - b) < within for a, b in zip(found, wanted, strict=True))


def looks_upright(image: Image.Image) -> bool:
    """True if red is above and blue below, as in the scene."""
    width, height = image.size
    above = colour(image, (width // 4, 0, width // 2, height // 3))
    below = colour(image, (width // 4, height * 2 // 3, width // 2, height))
    return above[0] > above[2] + 40 and below[2] > below[0] + 40


@pytest.mark.parametrize(
    ("name", "target", "form"),
    [
        ("a.jpg", "t.jpg", "JPEG"),
        ("a.jpg", "t.png", "PNG"),
        ("a.jpg", "t.webp", "WEBP"),
        ("a.jpg", "t.avif", "AVIF"),
        ("a.png", "t.webp", "WEBP"),
        ("a.webp", "t.jpg", "JPEG"),
        ("a.gif", "t.png", "PNG"),
        ("a.tif", "t.jpg", "JPEG"),
        ("a.avif", "t.jpg", "JPEG"),
    ],
)
def test_one_format_becomes_another(
    store: Storage, root: Path, context: Context, scene: Image.Image, name: str, target: str, form: str
) -> None:
    """A thumbnail and a converted image show the source, in the format of the target's name."""
    scene.save(root / name)
    small = make_thumbnail(Thumbnail(source=name, target=target, width=100, height=100), store, context)
    image = opened(root / target)
    assert (image.format, image.size) == (form, (100, 75)) == (form, (small.width, small.height))
    assert looks_upright(image)
    assert small.bytes == (root / target).stat().st_size
    convert_image(ConvertImage(source=name, target=target), store, context)
    image = opened(root / target)
    assert (image.format, image.size) == (form, (640, 480))
    assert looks_upright(image)


@pytest.mark.parametrize(
    ("box", "size"),
    [((100, 100), (100, 75)), ((1000, 48), (64, 48)), ((64, 1000), (64, 48)), ((9000, 9000), (640, 480))],
)
def test_a_thumbnail_fits_its_box_and_is_never_enlarged(
    store: Storage,
    root: Path,
    context: Context,
    scene: Image.Image,
    box: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """The proportions are kept, and a small original keeps its size."""
    scene.save(root / "a.jpg")
    make_thumbnail(Thumbnail(source="a.jpg", target="t.png", width=box[0], height=box[1]), store, context)
    assert opened(root / "t.png").size == size


@pytest.mark.parametrize("target", ["t.jpg", "t.png", "t.webp", "t.avif"])
def test_where_a_photograph_was_taken_is_not_passed_on(
    make_image: MakeImage, root: Path, scene: Image.Image, target: str
) -> None:
    """No place, camera, orientation, comment or profile is left in the output."""
    exif = Image.Exif()
    exif[0x010F], exif[ORIENTATION] = "SecretCamera", 6
    exif.get_ifd(GPS)[1] = "N"
    exif.get_ifd(GPS)[2] = (52.0, 30.0, 17.0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    scene.save(root / "a.jpg", exif=exif, comment="SecretComment", icc_profile=profile)
    assert opened(root / "a.jpg").getexif().get_ifd(GPS)
    make_image(source="a.jpg", target=target)
    image = opened(root / target)
    assert not image.getexif()
    assert "icc_profile" not in image.info
    assert b"Secret" not in (root / target).read_bytes()


def test_colours_of_another_profile_become_srgb(
    make_image: MakeImage, root: Path, scene: Image.Image
) -> None:
    """An image in Display P3 looks the same where its profile is gone."""
    scene.save(root / "srgb.png")
    _in_display_p3(root / "srgb.png", root / "p3.png")
    assert opened(root / "p3.png").tobytes() != scene.tobytes()
    make_image(source="p3.png", target="t.png")
    image = opened(root / "t.png")
    box = (10, 10, 200, 100)
    assert is_near(colour(image, box), tuple(round(value) for value in colour(scene, box)), within=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", ["garbage", "cut", "lab"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_profile_that_does_not_fit_is_ignored(
    make_image: MakeImage, root: Path, scene: Image.Image, profile: str, mode: str
) -> None:
    """A damaged or unsuitable colour profile is ignored."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    noted = {"garbage": b"garbage" * 100, "cut": srgb[:200], "lab": lab}[profile]
    scene.convert(mode).save(root / "a.jpg", icc_profile=noted)
    make_image(source="a.jpg", target="t.png")
    image = opened(root / "t.png")
    wanted = scene.convert("L").convert("RGB") if mode == "L" else scene
    box = (0, 0, image.width, image.height // 3)
    mean = colour(wanted, (0, 0, 640, 160))
    assert is_near(colour(image, box), tuple(round(value) for value in mean), within=45)  # type: ignore[arg-type]


def _in_display_p3(source: Path, target: Path) -> None:
    from millpond.tasks.files.vips import libvips

    image = libvips().Image.new_from_file(str(source)).icc_transform("p3", input_profile="srgb")
    image.write_to_file(str(target))


@pytest.mark.parametrize("mode", ["CMYK", "L", "I;16", "1", "P", "RGBA", "LA"])
def test_every_kind_of_pixel_is_brought_to_eight_bits_of_srgb_or_grey(
    make_image: MakeImage, root: Path, scene: Image.Image, mode: str
) -> None:
    """CMYK, 16 bits, palettes and transparency look as in other programs."""
    picture = scene.convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = picture.convert("I").point(lambda value: value * 256).convert("I;16")
    name = "a.jpg" if mode == "CMYK" else "a.png"
    picture.save(root / name)
    make_image(source=name, target="t.jpg")
    image = opened(root / "t.jpg")
    assert image.mode in ("RGB", "L")
    grey = mode in ("L", "I;16", "1", "LA")
    wanted = scene.convert("L").convert("RGB") if grey else scene
    for share in (0, 0.6):
        width, height = image.size
        box = (0, round(height * share), width, round(height * (share + 0.3)))
        within = (0, round(480 * share), 640, round(480 * (share + 0.3)))
        assert is_near(colour(image, box), tuple(round(v) for v in colour(wanted, within)), within=60)  # type: ignore[arg-type]


@pytest.mark.parametrize(("background", "wanted"), [("#ffffff", (255, 255, 255)), ("#102030", (16, 32, 48))])
def test_transparency_shows_the_background_where_a_format_has_none(
    store: Storage, root: Path, context: Context, background: str, wanted: tuple[int, int, int]
) -> None:
    """In a JPEG, transparent parts have the colour of `background`, which is white by default."""
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(root / "a.png")
    convert_image(ConvertImage(source="a.png", target="t.jpg", background=background), store, context)
    assert is_near(colour(opened(root / "t.jpg"), (0, 0, 64, 64)), wanted, within=3)


@pytest.mark.parametrize("target", ["t.png", "t.webp", "t.avif"])
def test_transparency_stays_where_a_format_has_it(
    store: Storage, root: Path, context: Context, target: str
) -> None:
    """Transparent pixels stay transparent in PNG, WebP and AVIF."""
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(root / "a.png")
    make_thumbnail(Thumbnail(source="a.png", target=target, width=32, height=32), store, context)
    assert opened(root / target).convert("RGBA").getpixel((5, 5))[3] == 0  # type: ignore[index]


def test_progressive_and_interlaced_files_are_read(
    store: Storage, root: Path, context: Context, scene: Image.Image
) -> None:
    """A progressive JPEG is read."""
    scene.save(root / "a.jpg", progressive=True)
    make_thumbnail(Thumbnail(source="a.jpg", target="t.jpg"), store, context)
    assert looks_upright(opened(root / "t.jpg"))


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "avif"])
def test_running_twice_gives_the_same_bytes(
    store: Storage, root: Path, context: Context, scene: Image.Image, form: ImageFormat
) -> None:
    """The output is a function of the input and the job."""
    scene.save(root / "a.jpg")
    seen = set()
    for _ in range(2):
        make_thumbnail(Thumbnail(source="a.jpg", target="t", format=form), store, context)
        convert_image(ConvertImage(source="a.jpg", target="c", format=form), store, context)
        seen.add(((root / "t").read_bytes(), (root / "c").read_bytes()))
    assert len(seen) == 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_one_task_never_gets_the_image_of_another(
    make_image: MakeImage, root: Path, orientation: int
) -> None:
    """libvips does not return a cached image for another file with the same descriptor."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for number, shade in enumerate((RED, BLUE, (10, 200, 10))):
        Image.new("RGB", (48, 48), shade).save(root / f"{number}.jpg", exif=exif)
        make_image(source=f"{number}.jpg", target="t.png")
        assert is_near(colour(opened(root / "t.png"), (0, 0, 48, 48)), shade, within=8)


def test_the_better_the_quality_the_longer_the_file(
    store: Storage, root: Path, context: Context, scene: Image.Image
) -> None:
    """A higher quality makes a longer file."""
    scene.save(root / "a.png")
    lengths = [
        convert_image(ConvertImage(source="a.png", target="t.jpg", quality=quality), store, context).bytes
        for quality in (20, 60, 95)
    ]
    assert lengths == sorted(set(lengths))


def test_an_unknown_format_is_refused_before_anything_is_sent() -> None:
    """The contract refuses it, with the endings that a target may have."""
    with pytest.raises(ValueError, match=r"\.jpg, \.jpeg, \.png"):
        Thumbnail(source="a.jpg", target="a.bmp")
    assert Thumbnail(source="a.jpg", target="a.bmp", format="png").target_format == "png"
    assert Thumbnail(source="a.jpg", target="s3://b/A.JPG").target_format == "jpeg"


def test_an_image_too_long_for_its_format_is_one_clear_line(
    store: Storage, root: Path, context: Context, names: Names
) -> None:
    """An image over the 16,383 pixels of a WebP's side is refused before it is encoded."""
    Image.new("1", (17_000, 2)).save(root / "a.png")
    with pytest.raises(BadInput, match="choose another format"):
        convert_image(ConvertImage(source="a.png", target="t.webp"), store, context)
    assert names() == ["a.png"]


def test_libvips_refuses_to_run_where_it_would_hang(
    store: Storage, root: Path, context: Context, scene: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process that was forked after libvips was used, a handler fails with the reason."""
    scene.save(root / "a.jpg")
    job = Thumbnail(source="a.jpg", target="t.jpg")
    make_thumbnail(job, store, context)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="forked"):
        make_thumbnail(job, store, context)
