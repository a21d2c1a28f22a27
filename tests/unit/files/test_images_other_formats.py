"""HEIC, BMP and images of several frames look as in other programs. Other formats are refused by name."""

import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, FinalError, TooLarge
from millpond.tasks.files.contract import ConvertImage, Thumbnail
from millpond.tasks.files.images import convert_image, make_thumbnail
from millpond.tasks.files.storage import Storage
from millpond.tasks.settings import Files

PHOTO = Path(__file__).parents[2] / "cases" / "img" / "photo.heic"
BODIES: list[tuple[Any, Any]] = [(make_thumbnail, Thumbnail), (convert_image, ConvertImage)]


def shown(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def far(one: Image.Image, other: Image.Image) -> float:
    """Return by how much the pixels of two pictures differ, at most."""
    channels = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).split()
    return float(max(channel.getextrema()[1] for channel in channels))  # type: ignore[type-var]


def test_a_photograph_of_a_telephone_is_read(store: Storage, root: Path, context: Context) -> None:
    """HEIC gives the pixels that its own library decodes, and no metadata."""
    import pi_heif

    (root / "in.heic").write_bytes(PHOTO.read_bytes())
    result = convert_image(ConvertImage(source="in.heic", target="out.png"), store, context)
    assert (result.width, result.height) == (300, 200)
    assert far(shown(root / "out.png"), pi_heif.open_heif(PHOTO).to_pillow()) == 0
    small = make_thumbnail(
        Thumbnail(source="in.heic", target="small.jpg", width=200, height=200), store, context
    )
    assert (small.width, small.height) == (200, 133)


@pytest.mark.parametrize(
    "brands", [b"mif1\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1miaf", b"heix\0\0\0\0mif1heix"]
)
def test_every_way_to_call_a_heic_is_known(
    store: Storage, root: Path, context: Context, brands: bytes
) -> None:
    """A HEIC is known by its main brand, by a compatible brand, or by its codec."""
    content = PHOTO.read_bytes()
    length = int.from_bytes(content[:4], "big")
    box = brands.ljust(length - 8, b"\0") if len(brands) < length - 8 else brands[: length - 8]
    (root / "in").write_bytes(content[:8] + box + content[length:])
    assert convert_image(ConvertImage(source="in", target="out.png"), store, context).width == 300


def test_without_its_decoder_a_heic_is_not_called_damaged(
    store: Storage, root: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the package to install."""
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (root / "in.heic").write_bytes(PHOTO.read_bytes())
    for body, contract in BODIES:
        with pytest.raises(FinalError, match=r"HEIC is not read here: install millpond\[heic\]") as caught:
            body(contract(source="in.heic", target="out.jpg"), store, context)
        assert "damaged" not in str(caught.value)


def test_the_size_of_a_heic_is_bounded(root: Path, context: Context) -> None:
    """The pixels in the header of a HEIC are limited by max_pixels."""
    (root / "in.heic").write_bytes(PHOTO.read_bytes())
    tight = Storage(roots=(str(root),), limits=Files(max_pixels=59_999))
    with pytest.raises(TooLarge, match="300 x 200 pixels"):
        convert_image(ConvertImage(source="in.heic", target="out.jpg"), tight, context)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA"])
def test_a_bmp_is_read(store: Storage, root: Path, context: Context, scene: Image.Image, mode: str) -> None:
    """BMPs of every depth are read."""
    picture = scene.convert(mode)
    picture.save(root / "in.bmp")
    convert_image(ConvertImage(source="in.bmp", target="out.png"), store, context)
    assert far(shown(root / "out.png"), picture) == 0


@pytest.mark.parametrize("form", ["GIF", "WEBP", "AVIF", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(
    store: Storage, root: Path, context: Context, scene: Image.Image, form: str
) -> None:
    """The first frame or page is read, in every format that can have several."""
    scene = scene.resize((160, 120))  # AVIF is slow
    frames = [scene, scene.rotate(90), scene.rotate(180)]
    frames[0].save(root / "in", form, save_all=True, append_images=frames[1:], duration=100)
    with Image.open(root / "in") as image:
        wanted = image.convert("RGB")
    for (body, contract), target in product(BODIES, ("out.png", "out.webp")):
        options = {"width": 640, "height": 480} if body is make_thumbnail else {}
        body(contract(source="in", target=target, **options), store, context)
        with Image.open(root / target) as image:
            assert getattr(image, "n_frames", 1) == 1
        found = shown(root / target)
        assert found.size == wanted.size
        assert far(found.resize((8, 8)), wanted.resize((8, 8))) <= (3 if target == "out.png" else 8)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_format_that_notes_how_a_camera_was_held_is_turned(
    store: Storage, root: Path, context: Context, scene: Image.Image, form: str, orientation: int
) -> None:
    """The orientation is applied as Pillow does, in every format that can have one."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    scene.resize((160, 120)).save(root / "in", form, exif=exif)
    with Image.open(root / "in") as image:
        wanted = ImageOps.exif_transpose(image).convert("RGB")
    convert_image(ConvertImage(source="in", target="out.png"), store, context)
    assert far(shown(root / "out.png"), wanted) <= 8
    box = {"width": wanted.width // 2, "height": wanted.height // 2}
    make_thumbnail(Thumbnail(source="in", target="small.png", **box), store, context)
    small = shown(root / "small.png")
    assert small.size == (wanted.width // 2, wanted.height // 2)
    assert far(small.resize((8, 8)), wanted.resize((8, 8))) < 40


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100), "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "JPEG 2000"),
        (b"8BPS\0\1" + bytes(100), "Photoshop"),
        (b"\0\0\1\0" + bytes(100), "ICO"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(100), "MPEG-4"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ],
)
def test_what_is_not_read_is_called_by_its_name(
    store: Storage, root: Path, context: Context, content: bytes, what: str
) -> None:
    """The error for another format names the format, and does not call the file damaged."""
    (root / "in.jpg").write_bytes(content)
    with pytest.raises(BadInput, match=f"no image that is read here.*it looks like .*{what}") as caught:
        convert_image(ConvertImage(source="in.jpg", target="out.png"), store, context)
    assert "damaged" not in str(caught.value)
