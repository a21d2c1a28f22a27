"""The memory that an image takes is estimated from its header, and limited."""

import struct
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from millpond.tasks.context import Context
from millpond.tasks.errors import TooLarge
from millpond.tasks.files.contract import ConvertImage, Thumbnail
from millpond.tasks.files.image_memory import refuse_too_large
from millpond.tasks.files.image_readers import open_picture
from millpond.tasks.files.images import convert_image, make_thumbnail
from millpond.tasks.files.storage import Storage
from millpond.tasks.settings import Files
from tests.harness.run_to_end import run_to_end

MIB = 1024**2

KINDS = [
    "jpg", "progressive.jpg", "turned.jpg", "png", "interlaced.png", "webp", "gif", "tif", "avif", "bmp",
    "alpha.png",
]  # fmt: skip


def interlaced_png(side: int) -> bytes:
    """Return a PNG of 16 bits with transparency, interlaced, of few bytes and many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    packer = zlib.compressobj(9)
    rows = b"".join(
        packer.compress(bytes(1 + 8 * len(range(left, side, across))))
        for left, top, across, down in passes
        for _ in range(top, side, down)
    )
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows + packer.flush()) + chunk(b"IEND", b"")


@pytest.mark.slow
def test_two_small_files_do_not_fill_the_container(store: Storage, root: Path, context: Context) -> None:
    """A PNG of 1.5 MB whose pixels are held whole, eight bytes each, is refused before they are decoded."""
    (root / "in.png").write_bytes(interlaced_png(13_000))
    assert (root / "in.png").stat().st_size < 1_500_000
    for body, contract in ((make_thumbnail, Thumbnail), (convert_image, ConvertImage)):
        with pytest.raises(
            TooLarge, match=r"takes about 1\d\d\d MiB to read and write as jpeg.*max_image_bytes"
        ):
            body(contract(source="in.png", target="out.jpg"), store, context)  # type: ignore[operator]
    assert [path.name for path in root.iterdir()] == ["in.png"]


def test_the_bound_is_the_settings(root: Path, context: Context, scene: Image.Image) -> None:
    """An AVIF takes far more to write than a JPEG, and a thumbnail as little as it is small."""
    scene.save(root / "a.jpg")
    tight = Storage(roots=(str(root),), limits=Files(max_image_bytes=2 * MIB))
    assert convert_image(ConvertImage(source="a.jpg", target="b.jpg"), tight, context).width == 640
    with pytest.raises(TooLarge, match="as avif, more than max_image_bytes"):
        convert_image(ConvertImage(source="a.jpg", target="b.avif"), tight, context)
    assert (
        make_thumbnail(Thumbnail(source="a.jpg", target="b.avif", width=64, height=64), tight, context).width
        == 64
    )


PROGRAM = """
import sys
from pathlib import Path
from millpond.tasks.context import Context
from millpond.tasks.files import images
from millpond.tasks.files.contract import ConvertImage, Thumbnail
from millpond.tasks.files.storage import Storage
from millpond.tasks.files.vips import libvips
import PIL.BmpImagePlugin, pi_heif
libvips()
image, thumb = (images.convert_image, ConvertImage), (images.make_thumbnail, Thumbnail)
body, contract = {"c": image, "t": thumb}[sys.argv[2]]
def peak():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
now = peak()
body(contract(source=sys.argv[1], target=sys.argv[3]), Storage(roots=(sys.argv[4],)), Context())
print(peak() - now)
"""


def _estimate(url: str, path: Path, box: tuple[int, int] | None, form: str) -> int:
    """Return the smallest limit in bytes with which an image is accepted."""
    low, high = 0, 2**40
    while high - low > 1:
        middle = (low + high) // 2
        try:
            limits = Files(max_image_bytes=middle)
            refuse_too_large(url, open_picture(url, str(path)), box, form, limits)  # type: ignore[arg-type]
            high = middle
        except TooLarge:
            low = middle
    return high


@pytest.mark.slow
@pytest.mark.parametrize("target", ["out.jpg", "out.png", "out.webp", "out.avif"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_image_takes_more_than_was_foreseen(root: Path, kind: str, target: str) -> None:
    """No format to no target takes more memory than estimated, and 32 MiB for the libraries."""
    path = root / f"in.{kind}"
    if kind == "interlaced.png":
        path.write_bytes(interlaced_png(2_000))
    else:
        picture = (
            Image.linear_gradient("L").resize((2_400, 2_400)).convert("RGBA" if "alpha" in kind else "RGB")
        )
        exif = Image.Exif()
        if kind == "turned.jpg":
            exif[0x0112] = 6
        options = {"progressive": True} if kind.startswith("progressive") else {}
        picture.save(path, **({"exif": exif} if "turned" in kind else {}), **options)
    for body, box in (("c", None), ("t", (320, 320))):
        done = run_to_end([sys.executable, "-c", PROGRAM, path.name, body, target, str(root)], check=True)
        form = {"jpg": "jpeg"}.get(target[4:], target[4:])
        assert int(done.stdout) <= _estimate(path.name, path, box, form) + 32 * MIB
