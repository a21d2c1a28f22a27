"""Make thumbnails and convert images: upright, in 8-bit sRGB, the first frame only, and without metadata.

What a file is, its content says, whatever its name. Its size is read from the header and checked before a
pixel is decoded; a file that is cut short is refused, where libvips would by default fill the rest with
grey.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, RetryLater, TooLarge
from millpond.tasks.files.contract import ConvertImage, ImageFormat, ImageResult, Thumbnail
from millpond.tasks.files.folders import shown
from millpond.tasks.files.storage import Storage
from millpond.tasks.files.vips import LOADERS, libvips

#: The longest side that a format can hold, in pixels.
_LONGEST = {"jpeg": 65_500, "png": 1_000_000, "webp": 16_383, "avif": 16_384}
_CMYK_WITH_ALPHA = 5
_SMALL_PIXELS = 4_000_000


def thumbnail(job: Thumbnail, storage: Storage, context: Context) -> ImageResult:
    """Write the source, scaled down to fit the job's box, in the target's format."""

    def scale(path: str, header: Any) -> Any:
        # Asked for an output profile, libvips transforms every pixel, even of sRGB: four times the work.
        profile = {"output_profile": "srgb"} if _has_profile(header) else {}
        return libvips().Image.thumbnail(
            path, job.width, height=job.height, size="down", fail_on="error", **profile
        )

    return _rewrite(job, storage, context, scale)


def convert(job: ConvertImage, storage: Storage, context: Context) -> ImageResult:
    """Write the source in the target's format, at its own size."""

    def load(path: str, header: Any) -> Any:
        turned = header.get_typeof("orientation") and header.get("orientation") > 1
        # To turn an image takes its rows in another order than the file's.
        image = libvips().Image.new_from_file(
            path, access="random" if turned else "sequential", fail_on="error"
        )
        upright = image.autorot()
        if _has_profile(header):
            return upright.icc_transform("srgb", embedded=True, depth=8)
        return upright

    return _rewrite(job, storage, context, load)


def _has_profile(header: Any) -> bool:
    return bool(header.get_typeof("icc-profile-data"))


def _rewrite(
    job: Thumbnail | ConvertImage, storage: Storage, context: Context, load: Callable[[str, Any], Any]
) -> ImageResult:
    form = job.target_format
    storage.refuse_same(job.source, job.target)
    with storage.local_input(job.source, empty_allowed=False) as path:
        header = _header(job.source, path, storage.limits.max_pixels)
        context.checkpoint()
        with _damage_explained(job.source):
            image = _plain(load(path, header), form, job.background)
        if max(image.width, image.height) > _LONGEST[form]:
            raise BadInput(
                f"{job.source} is {image.width} x {image.height} pixels, and {form} holds {_LONGEST[form]} "
                "a side: choose another format"
            )
        with storage.open_output(job.target) as file:
            with _damage_explained(job.source):
                _save(image, file, form, job.quality)
            context.checkpoint()
            length = file.tell()
    return ImageResult(target=job.target, bytes=length, format=form, width=image.width, height=image.height)


def _header(url: str, path: str, max_pixels: int) -> Any:
    """Read what the file says about itself, and refuse what is no image or too large a one."""
    vips = libvips()
    try:
        header = vips.Image.new_from_file(path, access="sequential")
    except vips.Error as error:
        raise BadInput(
            f"{url} is no whole JPEG, PNG, WebP, GIF, TIFF or AVIF image by its content: check the file"
        ) from error
    if header.get("vips-loader") not in LOADERS:
        raise BadInput(f"{url} is in a format that is not read here: convert it first")
    if header.width * header.height > max_pixels:
        raise TooLarge(
            f"{url} is {header.width} x {header.height} pixels, more than max_pixels ({max_pixels})"
        )
    if header.bands > _CMYK_WITH_ALPHA:
        raise BadInput(f"{url} has {header.bands} channels: only grey, RGB and CMYK images are read")
    return header


def _plain(image: Any, form: ImageFormat, background: str) -> Any:
    """Bring an image to 8-bit sRGB or grey, opaque where the format asks for it."""
    grey = image.interpretation in ("b-w", "grey16") and image.bands == 1
    image = image.colourspace("b-w" if grey else "srgb")
    if image.format != "uchar":
        image = image.cast("uchar")
    if form == "jpeg" and image.hasalpha():
        image = image.flatten(background=[int(background[at : at + 2], 16) for at in (1, 3, 5)])
    return image


def _save(image: Any, file: BinaryIO, form: ImageFormat, quality: int) -> None:
    """Encode into the file; an error of the file's own is raised as it is, not as libvips reports it."""
    vips = libvips()
    met: list[Exception] = []

    def write(data: Any) -> int:
        try:
            return file.write(data)
        except Exception as error:
            met.append(error)
            return -1

    target = vips.TargetCustom()
    target.on_write(write)
    try:
        if form == "jpeg":
            # The best coding is found over the whole image, which is held for it.
            small = image.width * image.height <= _SMALL_PIXELS
            image.jpegsave_target(target, Q=quality, optimize_coding=small, keep="none")
        elif form == "png":
            image.pngsave_target(target, filter="all", keep="none")
        elif form == "webp":
            image.webpsave_target(target, Q=quality, keep="none")
        else:
            image.heifsave_target(target, Q=quality, compression="av1", effort=2, keep="none")
    except vips.Error:
        if not met:
            raise
    if met:
        raise met[0]


@contextmanager
def _damage_explained(url: str) -> Iterator[None]:
    vips = libvips()
    try:
        yield
    except vips.Error as error:
        if "memory" in str(error):
            raise RetryLater(f"{url}: no memory left to decode it: give the worker more") from error
        raise BadInput(
            f"{url} is damaged or cut short: get it again from where it came from ({_line(error)})"
        ) from error


def _line(error: Exception) -> str:
    """Return the most telling line of a libvips error: the last of its details."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[-1]) if lines else "no reason given"
