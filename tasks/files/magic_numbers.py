"""Detect the format of a file by its first bytes, not by its name."""

import re

#: The number of first bytes that `detect_format` needs: the mark of a tar is at 257.
HEAD_BYTES = 512

#: The formats, each with the possible first bytes of its files.
_FIRST_BYTES: dict[str, tuple[bytes, ...]] = {
    "zip": (b"PK\x03\x04", b"PK\x05\x06", b"PK00PK\x03\x04", b"PK\x07\x08PK\x03\x04"),
    "gzip": (b"\x1f\x8b",),
    "compress (.Z)": (b"\x1f\x9d",),
    "bzip2": (b"BZh",),
    "xz": (b"\xfd7zXZ\x00",),
    "lzip": (b"LZIP",),
    "lz4": (b"\x04\x22\x4d\x18",),
    "zstd": (b"\x28\xb5\x2f\xfd",),
    "PDF": (b"%PDF-",),
    "Parquet": (b"PAR1",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "Photoshop document": (b"8BPS",),
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"\0\0\0\x0cJXL ", b"\xff\x0a"),
    "icon (ICO)": (b"\0\0\1\0",),
    "7z": (b"7z\xbc\xaf\x27\x1c",),
    "RAR": (b"Rar!\x1a\x07",),
    "old Office document": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",),
}
#: The lengths of the headers of all versions of BMP.
_BMP_HEADER_BYTES = (12, 40, 52, 56, 108, 124)
_TAR_MARK = slice(257, 262)
#: The mark of a frame that decoders skip. A zstd file may begin with one, as those of pzstd do.
SKIPPABLE_ZSTD = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--|<!DOCTYPE svg|<svg)", re.IGNORECASE)
#: The format of a picture in an ISO base media file, by its first brand in this table.
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
}


def detect_format(head: bytes) -> str | None:
    """Return the format of a file by its first bytes. Return None if they show no known format."""
    for format_, starts in _FIRST_BYTES.items():
        if head.startswith(starts):
            return format_
    if head[_TAR_MARK] == b"ustar":
        return "tar"
    if SKIPPABLE_ZSTD.match(head):
        return "zstd"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    if head[4:8] == b"ftyp":
        return _format_of_brand(head)
    return "SVG" if _SVG.match(head) else None


def _format_of_brand(head: bytes) -> str | None:
    """Return the format of an ISO base media file (ISO/IEC 14496-12) by its brands."""
    box = head[: int.from_bytes(head[:4], "big")]
    brands = [box[8:12], *(box[start : start + 4] for start in range(16, len(box), 4))]
    formats = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if formats:
        return formats[0]
    return "MPEG-4" if {b"mif1", b"msf1", b"mif2"}.isdisjoint(brands) else "HEIF"


def describe_head(head: bytes) -> str:
    """Return a clause for the error about a file of a wrong format: the format that its first bytes show."""
    format_ = detect_format(head)
    return f"it looks like {format_}" if format_ else "its first bytes show no format that is known here"
