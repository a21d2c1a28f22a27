"""Compressed bodies of stock clients, unpacked to a bounded length: a kilobyte may become a gigabyte."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

#: The maximum size of an unpacked body. A plain message has at most a third of this, unless its queue allows
#: more.
MOST_BYTES = 32 * 1024**2
#: The maximum of memory that unpacking uses in addition.
_WINDOW_BYTES = 128 * 1024**2

_UNPACKERS: Mapping[str, Callable[[], Any]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/x-lzma": lambda: lzma.LZMADecompressor(memlimit=_WINDOW_BYTES),
    "application/zstd": lambda: import_module("kombu.compression").zstd.ZstdDecompressor(),
}


def decompress(body: bytes, compression: str) -> bytes:
    """Return the unpacked body.

    `compression` is kombu's name of it. Raises `ValueError` if the body is too long, is cut short, or its
    compression cannot be bounded, `KeyError` for an unknown compression, and errors of the unpackers.
    """
    from kombu.compression import get_encoder

    _, content_type = get_encoder(compression)
    if content_type not in _UNPACKERS:
        raise ValueError(f"{content_type} cannot be unpacked within a bound: take gzip, bzip2, lzma or zstd")
    unpacker = _UNPACKERS[content_type]()
    unpacked: bytes = unpacker.decompress(body, MOST_BYTES + 1)
    if len(unpacked) > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_BYTES} bytes: send where its data lies instead")
    if not unpacker.eof:
        raise ValueError("the compressed body is cut short")
    return unpacked
