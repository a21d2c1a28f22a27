"""Hostile and truncated images, and files that are no images, are refused in one line, and leave nothing."""

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, RetryLater, TooLarge
from millpond.tasks.files import images
from millpond.tasks.files.contract import ConvertImage, ImageResult, Thumbnail
from millpond.tasks.files.images import convert_image, make_thumbnail
from millpond.tasks.files.storage import Storage
from millpond.tasks.settings import Files

Names = Callable[[], list[str]]
Refused = Callable[..., None]
PHOTO = Path(__file__).parents[2] / "cases" / "img" / "photo.heic"


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes) -> bytes:
    """Return a PNG with a size in its header, and hardly any pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    """Return a GIF with one frame of this size, and hardly any pixels."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    return head + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"


@pytest.fixture
def refused(make_image: Callable[..., ImageResult], names: Names) -> Refused:
    """Return a function that runs an operation on `hostile`, which is refused in one line without a trace."""

    def run(error: type[Exception], match: str, target: str = "t.jpg") -> None:
        before = names()
        with pytest.raises(error, match=match) as caught:
            make_image(source="hostile", target=f"out/{target}")
        assert "\n" not in str(caught.value)
        assert "/proc/" not in str(caught.value)
        assert names() == before

    return run


@pytest.mark.parametrize(
    "data", [png(60_000, 60_000), png(1_000_000, 201), gif(65_535, 65_535)], ids=["square", "flat", "gif"]
)
def test_a_bomb_of_pixels_is_refused_by_its_header(refused: Refused, root: Path, data: bytes) -> None:
    """A few hundred bytes that would become gigabytes are refused before a pixel is decoded."""
    (root / "hostile").write_bytes(data)
    refused(TooLarge, "max_pixels")


def test_the_bound_on_pixels_is_the_settings(
    root: Path, context: Context, scene: Image.Image, names: Names
) -> None:
    """One pixel over is refused; as many as allowed are read."""
    scene.save(root / "hostile", "JPEG")
    job = Thumbnail(source="hostile", target="t.jpg")
    tight = Storage(roots=(str(root),), limits=Files(max_pixels=640 * 480 - 1))
    with pytest.raises(TooLarge, match="640 x 480 pixels"):
        make_thumbnail(job, tight, context)
    assert names() == ["hostile"]
    fitting = Storage(roots=(str(root),), limits=Files(max_pixels=640 * 480))
    assert make_thumbnail(job, fitting, context).width == 320


#: Name -> how it is made, and what its reader says of half of it.
KINDS: dict[str, tuple[Callable[[Image.Image], bytes], str]] = {
    **{form: (partial(encoded, form=form), "") for form in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF")},
    "BMP": (partial(encoded, form="BMP"), "BMP: "),
    "HEIC": (lambda _: PHOTO.read_bytes(), "libheif: "),
    "progressive JPEG": (partial(encoded, form="JPEG", progressive=True), ""),
    "CMYK JPEG": (lambda picture: encoded(picture.convert("CMYK"), "JPEG"), ""),
    "lossless WebP": (partial(encoded, form="WEBP", lossless=True), ""),
    "animated WebP": (
        lambda picture: encoded(picture, "WEBP", save_all=True, append_images=[picture.rotate(9)]),
        "",
    ),
    "palette PNG": (lambda picture: encoded(picture.convert("P"), "PNG"), ""),
    "TIFF in LZW": (partial(encoded, form="TIFF", compression="tiff_lzw"), ""),
    "TIFF in JPEG": (partial(encoded, form="TIFF", compression="jpeg"), ""),
    "TIFF in group 4": (lambda picture: encoded(picture.convert("1"), "TIFF", compression="group4"), ""),
}


@pytest.mark.parametrize("kept", [0.05, 0.4, 0.8, 0.97])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_is_refused(
    refused: Refused, root: Path, scene: Image.Image, kind: str, kept: float
) -> None:
    """A truncated image is refused with the reader's reason, the same for each target, and not completed."""
    make, reason = KINDS[kind]
    whole = make(scene.resize((320, 240)))
    (root / "hostile").write_bytes(whole[: int(len(whole) * kept)])
    for target in ("t.jpg", "t.png", "t.webp"):
        refused(BadInput, f"is damaged or cut short(?!.*unable to write).*{reason}", target=target)


@pytest.mark.parametrize("form", ["PNG", "AVIF"])
def test_a_file_damaged_in_the_middle_is_refused(
    refused: Refused, root: Path, scene: Image.Image, form: str
) -> None:
    """Damage is found in the formats that have checksums."""
    whole = encoded(scene, form)
    half = len(whole) // 2
    (root / "hostile").write_bytes(whole[:half] + bytes(1000) + b"\xff" * 1000 + whole[half + 2000 :])
    refused(BadInput, "damaged")


@pytest.mark.parametrize(
    "data",
    [
        b"just some text, whatever the name says",
        b"%PDF-1.7\n",
        b"PK\x03\x04" + bytes(100),
        b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><rect width="9" height="9"/></svg>',
        b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        bytes(4096),
        b"8BPS\x00\x01" + bytes(100),
    ],
    ids=["text", "pdf", "zip", "svg", "svg with an entity", "zeros", "psd"],
)
def test_what_is_no_image_is_refused_whatever_it_is_called(
    refused: Refused, make_image: Callable[..., ImageResult], root: Path, data: bytes
) -> None:
    """The content decides, and formats that can fetch files or run programs are not read at all."""
    for name in ("hostile", "photo.jpg"):
        (root / name).write_bytes(data)
    refused(BadInput, "is no image that is read here")
    with pytest.raises(BadInput, match="is no image that is read here"):
        make_image(source="photo.jpg", target="t.jpg")


def test_an_image_with_another_formats_name_is_read_for_what_it_is(
    store: Storage, root: Path, context: Context, scene: Image.Image
) -> None:
    """A PNG called .jpg is a PNG."""
    scene.save(root / "photo.jpg", "PNG")
    assert make_thumbnail(Thumbnail(source="photo.jpg", target="t.webp"), store, context).format == "webp"


def test_an_empty_file_is_refused(refused: Refused, root: Path) -> None:
    """An empty file is no image."""
    (root / "hostile").touch()
    refused(BadInput, "is empty")


def test_a_bomb_of_metadata_is_harmless(make_image: Callable[..., ImageResult], root: Path) -> None:
    """A hundred megabytes in a compressed comment or profile are dropped, not unpacked into the output."""
    bomb = zlib.compress(bytes(100_000_000), 9)
    extra = [chunk(b"zTXt", b"Comment\0\0" + bomb), chunk(b"iCCP", b"icc\0\0" + bomb)]
    rows = zlib.compress(b"".join(b"\0" + bytes(3 * 10) for _ in range(10)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (root / "hostile").write_bytes(data)
    with suppress(BadInput):
        assert make_image(source="hostile", target="t.png").bytes < 1000


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_a_disk_that_fills_up_is_tried_later(
    store: Storage, root: Path, context: Context, scene: Image.Image, small_disk: Path
) -> None:
    """A write that failed for the encoder is an error of the disk, and not of the image."""
    scene.save(root / "hostile", "PNG")
    for form in ("jpg", "png", "webp", "avif"):
        job = ConvertImage(source="hostile", target=f"disk/a/t.{form}", quality=100)
        with pytest.raises(RetryLater, match="no room left"):
            convert_image(job, store, context)
        assert list(small_disk.iterdir()) == []


def test_no_memory_is_no_fault_of_the_image(
    refused: Refused, root: Path, scene: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image for which libvips has no memory left is retried."""
    from millpond.tasks.files.vips import libvips

    def fail(*_: Any) -> None:
        raise libvips().Error("vips_tracked_malloc: out of memory")

    scene.save(root / "hostile", "JPEG")
    monkeypatch.setattr(images, "_flatten_image", fail)
    refused(RetryLater, "no memory left")
