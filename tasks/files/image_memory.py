"""Bound the memory that an image takes, before a pixel is decoded: pixels x bytes x copies.

The factors were measured with libvips 8.18 on images of 16 million pixels, of every kind to every target, and
rounded up (`README.md`). A stream takes next to nothing. An image that a decoder or an encoder holds whole
counts.
"""

from millpond.tasks.errors import TooLarge
from millpond.tasks.files.endings import ImageFormat
from millpond.tasks.files.image_readers import Picture

#: The number of bytes that a decoder takes for each byte of a pixel, if it holds the image.
_HELD_WHOLE = {"WebP": 3, "GIF": 2, "AVIF": 6, "HEIC": 6, "BMP": 5}
#: How many bytes an encoder takes for a pixel of the target, without transparency and with it.
_ENCODER = {"jpeg": (1, 1), "png": (1, 1), "webp": (6, 13), "avif": (24, 33)}
#: Bytes of any pipeline for a pixel: rows that are under way, and a profile's transformation.
_STREAMED = 2
#: The coefficients of a progressive JPEG, two bytes a sample.
_PROGRESSIVE_SAMPLE = 2


def refuse_too_large(
    url: str, picture: Picture, box: tuple[int, int] | None, form: ImageFormat, max_bytes: int
) -> None:
    """Raise `TooLarge` if writing the picture as `form`, in a box or whole, takes over `max_bytes` bytes."""
    pixels = picture.width * picture.height
    written = pixels if box is None else min(pixels, box[0] * box[1])
    needed = pixels * _bytes_per_pixel(picture) + written * _ENCODER[form][picture.bands in (2, 4, 5)]
    if needed > max_bytes:
        raise TooLarge(
            f"{url} takes about {needed // 1024**2} MiB to read and write as {form}, more than "
            f"max_image_bytes ({max_bytes // 1024**2} MiB): make it smaller or choose another format"
        )


def _bytes_per_pixel(picture: Picture) -> int:
    """Return the bytes that a decoder takes for a pixel."""
    per_pixel = picture.bytes_per_pixel * _HELD_WHOLE.get(picture.format, 0)
    if picture.is_interlaced:
        per_pixel = (
            picture.bands * _PROGRESSIVE_SAMPLE if picture.format == "JPEG" else picture.bytes_per_pixel
        )
    return _STREAMED + per_pixel + (picture.bytes_per_pixel if picture.is_turned else 0)
