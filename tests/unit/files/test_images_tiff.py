"""A TIFF comes out as other readers show it, from its full page, or is refused as not supported."""

import io
import struct
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat, TiffImagePlugin

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
from millpond.tasks.files.contract import ConvertImage, Thumbnail
from millpond.tasks.files.images import convert_image, make_thumbnail
from millpond.tasks.files.storage import Storage

SIZE = (96, 64)


@pytest.fixture
def chart() -> Image.Image:
    """Return a picture in which every channel differs, of 96 x 64 pixels."""
    across = Image.linear_gradient("L").resize(SIZE)
    return Image.merge("RGB", (across, across.rotate(180), Image.new("L", SIZE, 90)))


def tiff(planes: list[bytes], *, order: str = "<", big: bool = False, tile: int = 0, **tags: Any) -> bytes:
    """Return a TIFF of one page without compression, of whole samples in one strip or tile a plane.

    `tags` overrule the page's own: `t262=6`, or a list of values.
    """
    values: dict[int, Any] = {
        256: SIZE[0],
        257: SIZE[1],
        258: [8, 8, 8],
        259: 1,
        262: 2,
        277: 3,
        (324 if tile else 273): [0] * len(planes),
        (325 if tile else 279): [len(plane) for plane in planes],
        284: 1 if len(planes) == 1 else 2,
        **({322: tile, 323: tile} if tile else {278: SIZE[1]}),
        **{int(name[1:]): value for name, value in tags.items()},
    }
    lists = {tag: value if isinstance(value, list) else [value] for tag, value in values.items()}
    lists = {tag: value for tag, value in lists.items() if value}
    head, word, entry = (16, "Q", 20) if big else (8, "I", 12)
    count = "Q" if big else "H"
    table = head + struct.calcsize(f"={count}{word}") + entry * len(lists)
    extra, begins = b"", table + 400
    for at, plane in enumerate(planes):
        lists[324 if tile else 273][at] = begins + sum(map(len, planes[:at]))
        assert plane
    entries = b""
    for tag, numbers in sorted(lists.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(packed) > struct.calcsize(word):
            extra += packed
            packed = struct.pack(order + word, table + len(extra) - len(packed))
        entries += struct.pack(f"{order}HH{word}", tag, 4, len(numbers)) + packed.ljust(
            struct.calcsize(word), b"\0"
        )
    assert len(extra) <= 400
    mark = b"II" if order == "<" else b"MM"
    start = mark + (struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8))
    directory = struct.pack(order + count, len(lists)) + entries + struct.pack(order + word, 0)
    return start + directory + extra.ljust(400, b"\0") + b"".join(planes)


def refused_images(store: Storage, context: Context) -> set[str]:
    """Return the errors of both operations on `in.tif`, for each target's format; nothing may be left."""
    said = set()
    for (body, contract), form in product(
        [(make_thumbnail, Thumbnail), (convert_image, ConvertImage)], ("jpg", "png", "webp", "avif")
    ):
        with pytest.raises(BadInput) as caught:
            body(contract(source="in.tif", target=f"out.{form}"), store, context)  # type: ignore[operator]
        said.add(str(caught.value))
    return said


def distance(store: Storage, root: Path, context: Context, wanted: Image.Image, within: float = 6) -> float:
    """Convert `in.tif`; return by how much its pixels are away from those wanted, at most."""
    convert_image(ConvertImage(source="in.tif", target="out.png"), store, context)
    with Image.open(root / "out.png") as image:
        found = image.convert(wanted.mode)
    assert found.size == wanted.size
    make_thumbnail(Thumbnail(source="in.tif", target="small.png", width=48, height=32), store, context)
    with Image.open(root / "small.png") as image:
        assert image.size == (48, 32)
        small = ImageStat.Stat(ImageChops.difference(image.convert(wanted.mode), wanted.resize((48, 32))))
        assert max(small.mean) < within
    channels = ImageChops.difference(found, wanted).split()
    return float(max(channel.getextrema()[1] for channel in channels))  # type: ignore[type-var]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["YCbCr", "RGB", "L", "CMYK", "1", "P", "RGBA", "LA", "I;16"])
def test_every_colour_space_of_a_tiff_is_shown_as_other_readers_do(
    store: Storage, root: Path, context: Context, chart: Image.Image, mode: str, compression: str
) -> None:
    """Y, Cb and Cr are converted to RGB. They were shown as red, green and blue."""
    picture = chart.convert("L").convert(mode) if mode == "I;16" else chart.convert(mode)
    if mode == "I;16":
        picture = chart.convert("I").point(lambda value: value * 257).convert("I;16")
    picture.save(root / "in.tif", compression=compression)
    wanted = chart.convert("L") if mode in ("I;16", "LA") else picture.convert("RGB")
    # CMYK has a profile of libvips's own, where Pillow subtracts.
    within = (110, 60) if mode == "CMYK" else (3, 6)
    assert distance(store, root, context, wanted, within[1]) <= within[0]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["ycbcr", "ycbcr by its own constants", "rgb", "planes"])
def test_byte_orders_and_layouts(
    store: Storage, root: Path, context: Context, chart: Image.Image, kind: str, order: str, big: bool
) -> None:
    """Both byte orders, BigTIFF, and samples in planes of their own are read."""
    samples = chart.convert("YCbCr") if "ycbcr" in kind else chart
    planes = [plane.tobytes() for plane in samples.split()] if kind == "planes" else [samples.tobytes()]
    more: dict[str, Any] = {"t262": 6, "t530": [1, 1]} if "ycbcr" in kind else {}
    (root / "in.tif").write_bytes(tiff(planes, order=order, big=big, **more))
    assert distance(store, root, context, chart) <= 3


UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "subsampled YCbCr": ({"t262": 6, "t530": [2, 2]}, "fewer samples than its brightness"),
    "YCbCr without a word on its sampling": ({"t262": 6}, "fewer samples than its brightness"),
    "Lab": ({"t262": 8}, "L*a*b*"),
    "ICC Lab": ({"t262": 9}, "L*a*b*"),
    "CFA": ({"t262": 32803}, "raw samples"),
    "linear raw": ({"t262": 34892}, "raw samples"),
    "LogLuv": ({"t262": 32845}, "Log Luv"),
    "a kind that nobody knows": ({"t262": 4711}, "samples of kind 4711"),
    "floating-point samples": ({"t339": [3, 3, 3]}, "floating-point"),
    "signed samples": ({"t339": [2, 2, 2]}, "signed"),
    "10 bits": ({"t258": [10, 10, 10]}, "samples have 10 bits"),
    "bits of several lengths": ({"t258": [5, 6, 5]}, "samples have 5, 6 bits"),
    "32 bits": ({"t258": [32, 32, 32]}, "samples have 32 bits"),
    "other inks": ({"t262": 5, "t332": 2, "t277": 4, "t258": [8] * 4}, "inks"),
    "old JPEG": ({"t259": 6}, "JPEG of TIFF 6.0"),
    "zstd": ({"t259": 50000}, "ZSTD compression support is not configured"),
    "LZMA": ({"t259": 34925}, "LZMA compression support is not configured"),
    "a camera's raw file": ({"t50706": [1]}, "raw one, beside a preview"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_is_not_supported_is_called_that(
    store: Storage, root: Path, context: Context, chart: Image.Image, case: str
) -> None:
    """The reason is the reader's, the same for each target; nothing of a sound file is called damaged."""
    tags, reason = UNSUPPORTED[case]
    (root / "in.tif").write_bytes(tiff([chart.tobytes() * 2], **tags))
    (said,) = refused_images(store, context)
    assert "is not supported here: " in said
    assert reason in said
    assert "damaged" not in said


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (
            {"t262": 6, "t530": [1, 1], "t532": [0, 255, 128, 255, 128]},
            "defined in a way that makes no sense",
        ),
        ({"t262": 8, "t258": [16] * 65}, "L*a*b*"),
    ],
    ids=["half a range", "too many bits"],
)
def test_a_tag_with_a_wrong_number_of_values_is_one_clear_line(
    store: Storage, root: Path, context: Context, chart: Image.Image, tags: dict[str, Any], reason: str
) -> None:
    """A hostile tag ended the task with an error of Python, and a traceback."""
    (root / "in.tif").write_bytes(tiff([chart.tobytes() * 2], **tags))
    (said,) = refused_images(store, context)
    assert "is not supported here: " in said
    assert reason in said


def test_a_rational_without_a_denominator_harms_no_picture_that_does_not_need_it(
    store: Storage, root: Path, context: Context, chart: Image.Image
) -> None:
    """The denominator 0 in a range of Y, Cb and Cr: an RGB picture is shown; it was called damaged."""
    longs, rationals = struct.pack("<HHI", 532, 4, 12), struct.pack("<HHI", 532, 5, 6)
    for kind, tags in {"RGB": {}, "YCbCr": {"t262": 6, "t530": [1, 1]}}.items():
        content = tiff([chart.tobytes()], t532=[7, 0] * 6, **tags)
        assert longs in content
        (root / "in.tif").write_bytes(content.replace(longs, rationals))
        if kind == "RGB":
            assert distance(store, root, context, chart) == 0
        else:
            (said,) = refused_images(store, context)
            assert "defined in a way that makes no sense" in said


def test_tiles_in_planes_are_not_supported(
    store: Storage, root: Path, context: Context, chart: Image.Image
) -> None:
    """The error has libvips's reason, even if the writer of the target's format reports one, too."""
    planes = [plane.resize((96, 96)).tobytes() for plane in chart.split()]
    (root / "in.tif").write_bytes(tiff(planes, tile=96))
    (said,) = refused_images(store, context)
    assert "is not supported here: tiff2vips: tiled separate planes not supported" in said


@pytest.mark.parametrize("compression", [50000, 34925])
@pytest.mark.parametrize("tile", [0, 96])
def test_a_tile_that_cannot_be_decoded_is_not_black(
    store: Storage, root: Path, context: Context, chart: Image.Image, tile: int, compression: int
) -> None:
    """Tiles in zstd or LZMA, for which the wheel has no decoder, came out black and "succeeded"."""
    content = chart.resize((96, 96)).tobytes()
    (root / "in.tif").write_bytes(tiff([content], tile=tile, t259=compression))
    (said,) = refused_images(store, context)
    assert "compression support is not configured" in said


@pytest.mark.parametrize("cut", [0.5, 0.7, 0.95])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiled_file_cut_short_is_refused(
    store: Storage, root: Path, context: Context, chart: Image.Image, big: bool, cut: float
) -> None:
    """Tiles beyond the end of the file came out black and "succeeded"."""
    content = tiff([chart.resize((96, 96)).tobytes()], tile=96, big=big)
    (root / "in.tif").write_bytes(content[: int(len(content) * cut)])
    assert all("damaged or cut short" in said for said in refused_images(store, context))


@pytest.mark.parametrize(("extra", "alpha"), [(0, False), (1, True), (2, True), ([], True)])
def test_a_fourth_sample_is_transparency_only_where_the_file_says_so(
    store: Storage, root: Path, context: Context, chart: Image.Image, extra: int | list[int], alpha: bool
) -> None:
    """A sample of no stated meaning is left out; multiplied colours are divided again."""
    half = Image.new("L", SIZE, 128)
    shown = chart.point(lambda value: value // 2) if extra == 1 else chart
    pixels = Image.merge("RGBA", (*shown.split(), half))
    (root / "in.tif").write_bytes(tiff([pixels.tobytes()], t277=4, t258=[8] * 4, t338=extra))
    wanted = Image.merge("RGBA", (*chart.split(), half)) if alpha else chart
    assert distance(store, root, context, wanted) <= 2


def saved(path: Path, pages: list[Image.Image], kinds: list[int]) -> None:
    """Write pages with a NewSubfileType each."""
    written = io.BytesIO()  # not a file: Pillow's writer goes back to it when it is collected
    writer = TiffImagePlugin.AppendingTiffWriter(written, new=True)
    for page, kind in zip(pages, kinds, strict=True):
        page.save(writer, "TIFF", tiffinfo={254: kind})
        writer.newFrame()
    path.write_bytes(written.getvalue())


@pytest.mark.parametrize("kinds", [[0, 1], [1, 0], [4, 0], [1, 1]])
def test_the_page_that_is_the_picture_is_taken(
    store: Storage, root: Path, context: Context, chart: Image.Image, kinds: list[int]
) -> None:
    """A smaller version or a mask before the picture is not taken for it."""
    small = chart.resize((24, 16))
    saved(root / "in.tif", [chart if not kind else small for kind in kinds], kinds)
    result = convert_image(ConvertImage(source="in.tif", target="out.png"), store, context)
    assert (result.width, result.height) == ((96, 64) if 0 in kinds else (24, 16))


def test_private_tags_do_no_harm(store: Storage, root: Path, context: Context, chart: Image.Image) -> None:
    """Unknown tags are ignored."""
    chart.save(root / "in.tif", tiffinfo={65000: 7, 65001: "x"}, compression="tiff_lzw")
    assert distance(store, root, context, chart) == 0
