"""Tell what a file holds by its first bytes, whatever its name says."""

#: How many of a file's first bytes `detected` wants to see: the tar mark stands at 257.
HEAD_BYTES = 512

_STARTS = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"%PDF-", "PDF"),
    (b"PAR1", "Parquet"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Office document"),
)
_TAR_MARK = slice(257, 262)


def detected(head: bytes) -> str | None:
    """Return what a file that begins with `head` is, or None where these bytes do not tell."""
    for start, what in _STARTS:
        if head.startswith(start):
            return what
    return "tar" if head[_TAR_MARK] == b"ustar" else None


def instead(head: bytes) -> str:
    """Return a clause for a message on a file that is not what it should be: what it looks like instead."""
    what = detected(head)
    return f"it looks like {what}" if what else "its first bytes tell of no format that is known here"
