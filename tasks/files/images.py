"""Make thumbnails and convert images: upright, in 8-bit sRGB, the first frame only, and without metadata.

The content decides the format, not the name. Its size is read from the header and checked before a
pixel is decoded. A file that is cut short is refused, while libvips would by default fill the rest with
grey.
"""

from collections.abc import Callable
from typing import Any, BinaryIO

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.contract import ConvertImage, ImageResult, Thumbnail
from millpond.tasks.files.endings import ImageFormat
from millpond.tasks.files.image_errors import translate_reader_errors
from millpond.tasks.files.image_memory import refuse_too_large
from millpond.tasks.files.image_readers import Picture, open_picture
from millpond.tasks.files.storage import Storage
from millpond.tasks.files.vips import libvips

#: The longest side that a format can hold, in pixels.
_LONGEST = {"jpeg": 65_500, "png": 1_000_000, "webp": 16_383, "avif": 16_384}
_SMALL_PIXELS = 4_000_000


def make_thumbnail(job: Thumbnail, storage: Storage, context: Context) -> ImageResult:
    """Write the source, scaled down to fit the job's box, in the target's format."""

    def scale(path: str, picture: Picture) -> Any:
        """Return the picture, scaled down to fit the box."""
        # With an output profile, libvips transforms every pixel, even of sRGB: four times the work.
        profile = {"output_profile": "srgb"} if picture.has_profile else {}
        box = {"height": job.height, "size": "down", **profile}
        if picture.shrinks:
            return libvips().Image.thumbnail(path, job.width, fail_on="error", **box)
        return picture.load(_row_access(picture)).thumbnail_image(job.width, **box)

    return _write_image(job, storage, context, scale)


def convert_image(job: ConvertImage, storage: Storage, context: Context) -> ImageResult:
    """Write the source in the target's format, at its own size."""

    def load(_path: str, picture: Picture) -> Any:
        upright = picture.load(_row_access(picture)).autorot()
        if picture.has_profile:
            return upright.icc_transform("srgb", embedded=True, depth=8)
        return upright

    return _write_image(job, storage, context, load)


def _row_access(picture: Picture) -> str:
    """Return libvips's way of reading rows: a turned image is read in another order than the file's."""
    return "random" if picture.is_turned else "sequential"


def _write_image(
    job: Thumbnail | ConvertImage, storage: Storage, context: Context, load: Callable[[str, Picture], Any]
) -> ImageResult:
    """Read an image, change it by `load`, and write it to the job's target. Return its size."""
    form = job.target_format
    storage.refuse_same(job.source, job.target)
    with storage.local_input(job.source, empty_allowed=False) as path:
        picture = open_picture(job.source, path)
        _refuse_too_many_pixels(job.source, picture, storage.limits.max_pixels)
        box = (job.width, job.height) if isinstance(job, Thumbnail) else None
        refuse_too_large(job.source, picture, box, form, storage.limits.max_image_bytes)
        context.checkpoint()
        with translate_reader_errors(job.source):
            image = _flatten_image(load(path, picture), form, job.background)
        if max(image.width, image.height) > _LONGEST[form]:
            raise BadInput(
                f"{job.source} is {image.width} x {image.height} pixels, and {form} holds {_LONGEST[form]} "
                "a side: choose another format"
            )
        with storage.open_output(job.target) as file:
            with translate_reader_errors(job.source, target=form):
                _encode_image(image, file, form, job.quality)
            context.checkpoint()
            length = file.tell()
    return ImageResult(target=job.target, bytes=length, format=form, width=image.width, height=image.height)


def _refuse_too_many_pixels(url: str, picture: Picture, max_pixels: int) -> None:
    """Raise `TooLarge` by the sizes in the header, before a pixel is decoded."""
    if picture.width * picture.height > max_pixels:
        raise TooLarge(
            f"{url} is {picture.width} x {picture.height} pixels, more than max_pixels ({max_pixels})"
        )


def _flatten_image(image: Any, form: ImageFormat, background: str) -> Any:
    """Bring an image to 8-bit sRGB or grey, and make it opaque if the format has no transparency."""
    grey = image.interpretation in ("b-w", "grey16") and image.bands == 1
    image = image.colourspace("b-w" if grey else "srgb")
    if image.format != "uchar":
        image = image.cast("uchar")
    if form == "jpeg" and image.hasalpha():
        image = image.flatten(background=[int(background[at : at + 2], 16) for at in (1, 3, 5)])
    return image


def _encode_image(image: Any, file: BinaryIO, form: ImageFormat, quality: int) -> None:
    """Encode into the file. An error of the file's own is raised as it is, not as libvips reports it."""
    vips = libvips()
    errors: list[Exception] = []

    def write(data: Any) -> int:
        """Write for libvips. Keep an error of the file and report the failure as -1."""
        try:
            return file.write(data)
        except Exception as error:
            errors.append(error)
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
        if not errors:
            raise
    if errors:
        raise errors[0]
