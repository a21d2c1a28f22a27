"""Estimate the memory that an image takes, before a pixel is decoded, and refuse one that takes too much.

The factors were measured with libvips 8.18 on images of 16 million pixels, from every format to every target,
and rounded up (`README.md`). Images that a decoder or an encoder holds as a whole take nearly all of it.
"""

from millpond.tasks.errors import TooLarge
from millpond.tasks.files.endings import ImageFormat
from millpond.tasks.files.image_readers import Picture
from millpond.tasks.settings import Files

#: The bytes that a decoder takes for each byte of a pixel, of formats whose images are decoded as a whole.
_DECODER_BYTES = {"WebP": 3, "GIF": 2, "AVIF": 6, "HEIC": 6, "BMP": 5}
#: The bytes that an encoder takes for a pixel of the target, without transparency and with it.
_ENCODER_BYTES = {"jpeg": (1, 1), "png": (1, 1), "webp": (6, 13), "avif": (24, 33)}
#: The bytes for a pixel of any image: rows in the pipeline, and the transformation of a colour profile.
_PIPELINE_BYTES = 2
#: The bytes for a sample of a progressive JPEG: its coefficient.
_PROGRESSIVE_SAMPLE_BYTES = 2


def refuse_too_large(
    url: str, picture: Picture, box: tuple[int, int] | None, target_format: ImageFormat, limits: Files
) -> None:
    """Raise `TooLarge` if a picture has too many pixels, or if reading and writing it takes too much memory.

    `box` is the width and height into which it is scaled down; None for its own size.
    """
    pixels = picture.width * picture.height
    if pixels > limits.max_pixels:
        raise TooLarge(
            f"{url} is {picture.width} x {picture.height} pixels, more than max_pixels ({limits.max_pixels})"
        )
    target_pixels = pixels if box is None else min(pixels, box[0] * box[1])
    has_alpha = picture.bands in (2, 4, 5)  # 4 may be CMYK without it, which is estimated too high
    needed = (
        pixels * _estimate_bytes_per_pixel(picture) + target_pixels * _ENCODER_BYTES[target_format][has_alpha]
    )
    if needed > limits.max_image_bytes:
        raise TooLarge(
            f"{url} takes about {needed // 1024**2} MiB to read and write as {target_format}, more than "
            f"max_image_bytes ({limits.max_image_bytes // 1024**2} MiB): make it smaller or choose another "
            "format"
        )


def _estimate_bytes_per_pixel(picture: Picture) -> int:
    """Return the bytes that the decoder and the pipeline take for a pixel."""
    decoder = picture.bytes_per_pixel * _DECODER_BYTES.get(picture.format, 0)
    if picture.is_interlaced:
        is_jpeg = picture.format == "JPEG"
        decoder = picture.bands * _PROGRESSIVE_SAMPLE_BYTES if is_jpeg else picture.bytes_per_pixel
    return _PIPELINE_BYTES + decoder + (picture.bytes_per_pixel if picture.is_turned else 0)
