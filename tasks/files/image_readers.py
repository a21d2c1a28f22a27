"""Open a picture by the format that its content shows: its size first, its pixels on demand.

libvips reads JPEG, PNG, WebP, GIF, TIFF and AVIF. HEIC, of telephones, and BMP have readers of their own,
because the wheel of libvips has no HEVC decoder and no BMP. A picture that no reader shows as other programs
do is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from millpond.tasks.errors import BadInput, FinalError
from millpond.tasks.files import tiff_tags
from millpond.tasks.files.image_errors import translate_reader_errors, unsupported_error
from millpond.tasks.files.magic_numbers import HEAD_BYTES, describe_head, detect_format
from millpond.tasks.files.vips import libvips

#: The loaders that read a picture from front to back and can decode a smaller one at once.
_SHRINKING = ("JPEG", "PNG", "WebP", "GIF")
_LOADERS = {
    "JPEG": "jpegload",
    "PNG": "pngload",
    "WebP": "webpload",
    "GIF": "gifload",
    "TIFF": "tiffload",
    "AVIF": "heifload",
}
FORMATS = (*_LOADERS, "HEIC", "BMP")
_CMYK_WITH_ALPHA = 5


@dataclass(frozen=True)
class Picture:
    """A picture whose pixels are not decoded yet. `load` decodes them with the access that libvips names.

    `shrinks` is True if `Image.thumbnail` may open the file itself, which is faster.
    """

    format: str
    width: int
    height: int
    bands: int
    bytes_per_pixel: int
    load: Callable[[str], Any]
    has_profile: bool = False
    is_turned: bool = False
    is_interlaced: bool = False
    shrinks: bool = False


def open_picture(url: str, path: str) -> Picture:
    """Return the picture in the file `path`. Raises `BadInput`, which names `url`, for any other file."""
    with Path(path).open("rb") as file:
        head = file.read(HEAD_BYTES)
    format_ = detect_format(head)
    if format_ == "HEIF":
        format_ = "AVIF" if _is_av1(path) else "HEIC"
    if format_ not in FORMATS:
        raise BadInput(
            f"{url} is no image that is read here ({', '.join(FORMATS)}): "
            f"{describe_head(head)}; convert it first"
        )
    with translate_reader_errors(url):
        if format_ == "HEIC":
            return _open_heic(url, path)
        if format_ == "BMP":
            return _open_bmp(url, path)
        return _open_tiff(url, path) if format_ == "TIFF" else _open_plain(url, path, format_)


def _open_plain(url: str, path: str, format_: str) -> Picture:
    """Open a file of a format whose pixels libvips gives upright and in RGB."""
    # The loader is named: of AVIF with several pictures libvips does not know the beginning.
    loader = getattr(libvips().Image, _LOADERS[format_])
    header = loader(path, access="sequential")
    if header.bands > _CMYK_WITH_ALPHA:
        raise unsupported_error(url, f"it has {header.bands} channels")
    return _describe_picture(
        header,
        format_,
        lambda access: loader(path, access=access, memory=access == "random", fail_on="error"),
        is_interlaced=bool(header.get_typeof("interlaced") and header.get("interlaced")),
        shrinks=format_ in _SHRINKING,
    )


def _open_tiff(url: str, path: str) -> Picture:
    """Open the page of a TIFF that is its picture."""
    with Path(path).open("rb") as file:
        try:
            page = tiff_tags.choose_page(file)
        except tiff_tags.Unsupported as error:
            raise unsupported_error(url, str(error)) from error
    loader = partial(libvips().Image.tiffload, path, page=page.number)

    # Below "warning" a tile that cannot be decoded is black, and no error; in strips any odd tag is an error.
    fail_on = "warning" if page.is_tiled else "error"

    def load(access: str) -> Any:
        image = loader(access=access, memory=access == "random", fail_on=fail_on)
        samples = page.colour_count + page.has_alpha
        image = image if image.bands <= samples else image.extract_band(0, n=samples)
        return image if page.ycbcr is None else _ycbcr_to_rgb(image, page.ycbcr)

    return _describe_picture(loader(access="sequential"), "TIFF", load)


def _ycbcr_to_rgb(image: Any, colours: tiff_tags.YCbCr) -> Any:
    """Return Y, Cb, Cr as RGB."""
    scales, offsets = colours.scale_and_offset
    matrix = libvips().Image.new_from_array(colours.matrix)
    red_green_blue = image.extract_band(0, n=3).linear(scales, offsets).recomb(matrix).rint().cast("uchar")
    if image.bands > 3:
        red_green_blue = red_green_blue.bandjoin(image.extract_band(3))
    return red_green_blue.copy(interpretation="srgb")


def _describe_picture(header: Any, format_: str, load: Callable[[str], Any], **more: Any) -> Picture:
    """Return the picture for a header that libvips has read."""
    sample = {"uchar": 1, "char": 1, "ushort": 2, "short": 2}.get(header.format, 4)
    return Picture(
        format_,
        header.width,
        header.height,
        header.bands,
        header.bands * sample,
        load,
        has_profile=bool(header.get_typeof("icc-profile-data")),
        is_turned=bool(header.get_typeof("orientation") and header.get("orientation") > 1),
        **more,
    )


def _is_av1(path: str) -> bool:
    """True if the picture in a HEIF file is encoded as AV1."""
    vips = libvips()
    try:
        return bool(vips.Image.heifload(path).get("heif-compression") == "av1")
    except vips.Error:
        return False


def _open_heic(url: str, path: str) -> Picture:
    """Open the main picture of a HEIC file, which comes upright from its decoder."""
    try:
        import pi_heif
    except ImportError as error:
        raise FinalError(
            f"{url}: HEIC is not read here: install millpond[heic] where the workers run, or convert it first"
        ) from error
    pi_heif.options.DECODE_THREADS = 1  # a slot is one core
    try:
        heif = pi_heif.open_heif(path)
    except (ValueError, RuntimeError, EOFError, SyntaxError) as error:
        raise _heif_error(url, error) from error
    image = heif[heif.primary_index]
    profile = image.info.get("icc_profile")

    def load(_access: str) -> Any:
        """Return the decoded pixels, without the padding at the ends of rows."""
        try:
            data, width = image.data, image.stride // len(image.mode)
        except (ValueError, RuntimeError, EOFError) as error:
            raise _heif_error(url, error) from error
        pixels = _image_of_bytes(data, width, image.size[1], len(image.mode), profile)
        return pixels.crop(0, 0, *image.size) if width > image.size[0] else pixels

    width, height = image.size
    bands = len(image.mode)
    return Picture("HEIC", width, height, bands, bands, load, has_profile=bool(profile))


def _heif_error(url: str, error: Exception) -> Exception:
    cause: Exception = libvips().Error(f"{url}: ", f"libheif: {' '.join(str(error).split())}")
    return cause


def _open_bmp(url: str, path: str) -> Picture:
    """Open a BMP with Pillow."""
    from PIL.BmpImagePlugin import BmpImageFile

    def read(*, pixels: bool) -> tuple[int, int, str, bytes]:
        """Return the width, height and mode, and the pixels if requested."""
        try:
            with Path(path).open("rb") as file, BmpImageFile(file) as image:
                mode = image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB"
                return *image.size, mode, image.convert(mode).tobytes() if pixels else b""
        except (OSError, SyntaxError, ValueError) as error:
            raise _bmp_error(url, error) from error

    def load(_access: str) -> Any:
        width, height, mode, data = read(pixels=True)
        return _image_of_bytes(data, width, height, len(mode), None)

    width, height, mode, _ = read(pixels=False)
    return Picture("BMP", width, height, len(mode), len(mode), load)


def _bmp_error(url: str, error: Exception) -> Exception:
    cause: Exception = libvips().Error(f"{url}: ", f"BMP: {error}")
    return cause


def _image_of_bytes(data: Any, width: int, height: int, bands: int, profile: bytes | None) -> Any:
    """Return an image of these pixels, 8 bits a sample, with its colour profile."""
    vips = libvips()
    image = vips.Image.new_from_memory(data, width, height, bands, "uchar")
    image = image.copy(interpretation="b-w" if bands < 3 else "srgb")
    if profile:
        image.set_type(vips.GValue.blob_type, "icc-profile-data", profile)
    return image
