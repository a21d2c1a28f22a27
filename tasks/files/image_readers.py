"""Open a picture by the format that its content shows: read its header, and decode its pixels on demand.

libvips reads JPEG, PNG, WebP, GIF, TIFF and AVIF. The wheel of libvips has no decoder of HEVC and no BMP, so
pi-heif reads HEIC, and Pillow reads BMP. A picture that would look other than in other programs is refused.
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

#: The formats whose loaders can decode a smaller picture directly.
_SHRINKING = ("JPEG", "PNG", "WebP", "GIF")
#: libvips's function for each format.
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
    """The header of a picture, and the function that decodes its pixels.

    `load` takes libvips's name of the access, `sequential` or `random`. `is_turned` is True if the pixels are
    rotated by the orientation in the header. `shrinks` is True if `Image.thumbnail` may open the file itself,
    which is faster.
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
    """Return the picture in the file `path`. Raises `BadInput` about `url` if it cannot be read here."""
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
        return _open_tiff(url, path) if format_ == "TIFF" else _open_with_libvips(url, path, format_)


def _open_with_libvips(url: str, path: str, format_: str) -> Picture:
    """Open a file of a format that libvips reads without help: all of its formats but TIFF."""
    # The loader is named, because libvips does not recognize an AVIF with several pictures.
    loader = getattr(libvips().Image, _LOADERS[format_])
    header = loader(path, access="sequential")
    if header.bands > _CMYK_WITH_ALPHA:
        raise unsupported_error(url, f"it has {header.bands} channels")
    return _make_picture(
        header,
        format_,
        lambda access: loader(path, access=access, memory=access == "random", fail_on="error"),
        is_interlaced=bool(header.get_typeof("interlaced") and header.get("interlaced")),
        shrinks=format_ in _SHRINKING,
    )


def _open_tiff(url: str, path: str) -> Picture:
    """Open the page of a TIFF that is its picture. Raises `BadInput` if libvips would show it wrongly."""
    with Path(path).open("rb") as file:
        try:
            page = tiff_tags.choose_page(file)
        except tiff_tags.Unsupported as error:
            raise unsupported_error(url, str(error)) from error
    loader = partial(libvips().Image.tiffload, path, page=page.number)

    # A damaged tile is an error only for "warning"; without tiles, that would make any unknown tag an error.
    fail_on = "warning" if page.is_tiled else "error"

    def load(access: str) -> Any:
        """Return the decoded pixels in RGB or grey, without samples that are no colours."""
        image = loader(access=access, memory=access == "random", fail_on=fail_on)
        samples = page.colour_count + page.has_alpha
        image = image if image.bands <= samples else image.extract_band(0, n=samples)
        return image if page.ycbcr is None else _ycbcr_to_rgb(image, page.ycbcr)

    return _make_picture(loader(access="sequential"), "TIFF", load)


def _ycbcr_to_rgb(image: Any, constants: tiff_tags.YCbCr) -> Any:
    """Return an image in Y, Cb and Cr as one in RGB. Its transparency is kept."""
    scales, offsets = constants.scales_and_offsets
    matrix = libvips().Image.new_from_array(constants.rgb_matrix)
    rgb = image.extract_band(0, n=3).linear(scales, offsets).recomb(matrix).rint().cast("uchar")
    if image.bands > 3:
        rgb = rgb.bandjoin(image.extract_band(3))
    return rgb.copy(interpretation="srgb")


def _make_picture(header: Any, format_: str, load: Callable[[str], Any], **properties: Any) -> Picture:
    """Return the picture for a header that libvips has read. `properties` are further fields of `Picture`."""
    sample_bytes = {"uchar": 1, "char": 1, "ushort": 2, "short": 2}.get(header.format, 4)
    return Picture(
        format_,
        header.width,
        header.height,
        header.bands,
        header.bands * sample_bytes,
        load,
        has_profile=bool(header.get_typeof("icc-profile-data")),
        is_turned=bool(header.get_typeof("orientation") and header.get("orientation") > 1),
        **properties,
    )


def _is_av1(path: str) -> bool:
    """True if the picture in a HEIF file is encoded as AV1: the file is an AVIF."""
    vips = libvips()
    try:
        return bool(vips.Image.heifload(path).get("heif-compression") == "av1")
    except vips.Error:
        return False


def _open_heic(url: str, path: str) -> Picture:
    """Open the main picture of a HEIC file with pi-heif. Raises `FinalError` if that is not installed."""
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
    width, height = image.size
    bands = len(image.mode)

    def load(_access: str) -> Any:
        """Return the decoded pixels. pi-heif leaves no padding at the ends of rows."""
        try:
            data = image.data
        except (ValueError, RuntimeError, EOFError) as error:
            raise _heif_error(url, error) from error
        return _make_image(data, width, height, bands, profile)

    return Picture("HEIC", width, height, bands, bands, load, has_profile=bool(profile))


def _reader_error(url: str, reason: str) -> Exception:
    """Return the error of another reader as one of libvips, which `translate_reader_errors` translates."""
    error: Exception = libvips().Error(f"{url}: ", reason)
    return error


def _heif_error(url: str, error: Exception) -> Exception:
    return _reader_error(url, f"libheif: {' '.join(str(error).split())}")


def _open_bmp(url: str, path: str) -> Picture:
    """Open a BMP with Pillow, without decoding its pixels."""
    from PIL.BmpImagePlugin import BmpImageFile

    def read(*, pixels: bool) -> tuple[int, int, str, bytes]:
        """Return the width, the height, the mode, and the decoded pixels; b"" without `pixels`."""
        try:
            with Path(path).open("rb") as file, BmpImageFile(file) as image:
                mode = image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB"
                return *image.size, mode, image.convert(mode).tobytes() if pixels else b""
        except (OSError, SyntaxError, ValueError) as error:
            raise _reader_error(url, f"BMP: {error}") from error

    def load(_access: str) -> Any:
        """Return the decoded pixels."""
        width, height, mode, data = read(pixels=True)
        return _make_image(data, width, height, len(mode), None)

    width, height, mode, _ = read(pixels=False)
    return Picture("BMP", width, height, len(mode), len(mode), load)


def _make_image(data: Any, width: int, height: int, bands: int, profile: bytes | None) -> Any:
    """Return an image of libvips with these pixels, 8 bits a sample, and this colour profile."""
    vips = libvips()
    image = vips.Image.new_from_memory(data, width, height, bands, "uchar")
    image = image.copy(interpretation="b-w" if bands < 3 else "srgb")
    if profile:
        image.set_type(vips.GValue.blob_type, "icc-profile-data", profile)
    return image
