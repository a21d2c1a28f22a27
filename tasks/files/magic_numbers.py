"""Detect the format of a file by its first bytes, not by its name."""

import re

#: The number of a file's first bytes that `detect_format` needs: the tar mark is at 257.
HEAD_BYTES = 512

_STARTS = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PK00PK\x03\x04", "zip"),
    (b"PK\x07\x08PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x1f\x9d", "compress (.Z)"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"LZIP", "lzip"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"%PDF-", "PDF"),
    (b"PAR1", "Parquet"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"8BPS", "Photoshop document"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\1\0", "icon (ICO)"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Office document"),
)
_TAR_MARK = slice(257, 262)
#: zstd files may begin with frames that decoders skip, as pzstd's do.
SKIPPABLE_ZSTD = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--|<!DOCTYPE svg|<svg)", re.IGNORECASE)
#: The brands of ISO base media files that hold pictures. A file's first brand in this table is its format.
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
}


def detect_format(head: bytes) -> str | None:
    """Return the format of a file that begins with `head`, or None if these bytes do not show it."""
    for start, what in _STARTS:
        if head.startswith(start):
            return what
    if head[_TAR_MARK] == b"ustar":
        return "tar"
    if SKIPPABLE_ZSTD.match(head):
        return "zstd"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[14:18] in (
        b"\x0c\0\0\0",
        b"(\0\0\0",
        b"4\0\0\0",
        b"8\0\0\0",
        b"l\0\0\0",
        b"|\0\0\0",
    ):
        return "BMP"
    if head[4:8] == b"ftyp":
        return _format_of_brand(head)
    return "SVG" if _SVG.match(head) else None


def _format_of_brand(head: bytes) -> str | None:
    """Return the format of an ISO media file (ISO/IEC 14496-12) by its brands."""
    box = head[: int.from_bytes(head[:4], "big")]
    brands = [box[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))]
    formats = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if formats:
        return formats[0]
    return "HEIF" if any(brand in (b"mif1", b"msf1", b"mif2") for brand in brands) else "MPEG-4"


def describe_head(head: bytes) -> str:
    """Return a clause for an error about a file of another format: the format that its first bytes show."""
    what = detect_format(head)
    return f"it looks like {what}" if what else "its first bytes show no format that is known here"
