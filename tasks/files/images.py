"""Make thumbnails and convert images: upright, in 8-bit sRGB, the first frame only, and without metadata.

The content decides the format, not the name. The size in the header is checked before a pixel is decoded. A
truncated file is refused: by default, libvips would make the missing part grey.
"""

from collections.abc import Callable
from typing import Any, BinaryIO

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
from millpond.tasks.files.contract import ConvertImage, ImageResult, Thumbnail
from millpond.tasks.files.endings import ImageFormat
from millpond.tasks.files.image_errors import translate_reader_errors
from millpond.tasks.files.image_memory import refuse_too_large
from millpond.tasks.files.image_readers import Picture, open_picture
from millpond.tasks.files.storage import Storage
from millpond.tasks.files.vips import libvips

#: The longest side of an image in each format, pixels.
_LONGEST_SIDE = {"jpeg": 65_500, "png": 1_000_000, "webp": 16_383, "avif": 16_384}

#: The most pixels of an image whose JPEG coding is optimized.
_OPTIMIZED_PIXELS = 4_000_000


def make_thumbnail(job: Thumbnail, storage: Storage, context: Context) -> ImageResult:
    """Write the source to the target, scaled down to fit the job's box, in the target's format."""

    def scale(path: str, picture: Picture) -> Any:
        """Return the picture, scaled down to fit the box."""
        # With an output profile, libvips transforms every pixel, even of sRGB: four times the work.
        profile = {"output_profile": "srgb"} if picture.has_profile else {}
        box = {"height": job.height, "size": "down", **profile}
        if picture.shrinks:
            return libvips().Image.thumbnail(path, job.width, fail_on="error", **box)
        return picture.load(_choose_row_access(picture)).thumbnail_image(job.width, **box)

    return _write_image(job, storage, context, scale)


def convert_image(job: ConvertImage, storage: Storage, context: Context) -> ImageResult:
    """Write the source to the target in the target's format, at its own size."""

    def load(_path: str, picture: Picture) -> Any:
        """Return the picture upright and in sRGB."""
        upright = picture.load(_choose_row_access(picture)).autorot()
        if picture.has_profile:
            return upright.icc_transform("srgb", embedded=True, depth=8)
        return upright

    return _write_image(job, storage, context, load)


def _choose_row_access(picture: Picture) -> str:
    """Return libvips's name of the access to rows: a turned image is not read in the order of the file."""
    return "random" if picture.is_turned else "sequential"


def _write_image(
    job: Thumbnail | ConvertImage, storage: Storage, context: Context, load: Callable[[str, Picture], Any]
) -> ImageResult:
    """Read the job's source, change it by `load`, and write it to the job's target.

    `load` takes a local path and the header, and returns the image of libvips to write.
    """
    target_format = job.target_format
    storage.refuse_same_file(job.source, job.target)
    with storage.local_input(job.source, empty_allowed=False) as path:
        picture = open_picture(job.source, path)
        box = (job.width, job.height) if isinstance(job, Thumbnail) else None
        refuse_too_large(job.source, picture, box, target_format, storage.limits)
        context.checkpoint()
        with translate_reader_errors(job.source):
            image = _flatten_image(load(path, picture), target_format, job.background)
        longest = _LONGEST_SIDE[target_format]
        if max(image.width, image.height) > longest:
            raise BadInput(
                f"{job.source} is {image.width} x {image.height} pixels, and {target_format} holds {longest} "
                "a side: choose another format"
            )
        with storage.open_output(job.target) as file:
            with translate_reader_errors(job.source, target_format=target_format):
                _encode_image(image, file, target_format, job.quality)
            context.checkpoint()
            length = file.tell()
    size = {"width": image.width, "height": image.height}
    return ImageResult(target=job.target, bytes=length, format=target_format, **size)


def _flatten_image(image: Any, target_format: ImageFormat, background: str) -> Any:
    """Return an image in 8-bit sRGB or grey, opaque if the target's format has no transparency."""
    is_grey = image.interpretation in ("b-w", "grey16") and image.bands == 1
    image = image.colourspace("b-w" if is_grey else "srgb")
    if image.format != "uchar":
        image = image.cast("uchar")
    if target_format == "jpeg" and image.hasalpha():
        image = image.flatten(background=[int(background[at : at + 2], 16) for at in (1, 3, 5)])
    return image


def _encode_image(image: Any, file: BinaryIO, target_format: ImageFormat, quality: int) -> None:
    """Encode an image into a file. An error of the file is raised itself, not as one of libvips."""
    vips = libvips()
    errors: list[Exception] = []

    def write(data: Any) -> int:
        """Write to the file, and return the number of bytes. Collect an error, and return -1 for it."""
        try:
            return file.write(data)
        except Exception as error:
            errors.append(error)
            return -1

    target = vips.TargetCustom()
    target.on_write(write)
    try:
        if target_format == "jpeg":
            # The best coding is found over the whole image, which is in memory for it.
            optimize = image.width * image.height <= _OPTIMIZED_PIXELS
            image.jpegsave_target(target, Q=quality, optimize_coding=optimize, keep="none")
        elif target_format == "png":
            image.pngsave_target(target, filter="all", keep="none")
        elif target_format == "webp":
            image.webpsave_target(target, Q=quality, keep="none")
        else:
            image.heifsave_target(target, Q=quality, compression="av1", effort=2, keep="none")
    except vips.Error:
        if not errors:
            raise
    if errors:
        raise errors[0]
