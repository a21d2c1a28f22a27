"""Compressed bodies are unpacked as kombu packs them, and to a bounded length."""

import bz2
import lzma
import tracemalloc
import zlib
from base64 import b64encode
from collections.abc import Callable

import pytest
from kombu.compression import compress, encoders

from millpond.broker.message_body import BadMessage, decode_arguments
from millpond.broker.message_compression import MOST_BYTES, decompress

PLAIN = b'[[], {"n": 1}, {}]'


@pytest.mark.parametrize(
    "name", sorted({*encoders(), "zlib", "gzip", "bzip2", "lzma"} - {"application/x-brotli"})
)
def test_what_kombu_packs_is_unpacked(name: str) -> None:
    """By each name that a client may give."""
    packed, content_type = compress(PLAIN, name)
    assert decompress(packed, content_type) == decompress(packed, name) == PLAIN


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("gzip", lambda text: zlib.compress(text, 1)),
        ("bzip2", bz2.compress),
        ("lzma", lambda text: lzma.compress(text, preset=0)),
    ],
)
def test_a_body_that_swells_is_refused_within_the_bound(name: str, pack: Callable[[bytes], bytes]) -> None:
    """Six times the bound costs the bound, and is one line."""
    envelope = {
        "body": b64encode(pack(bytes(6 * MOST_BYTES))).decode(),
        "content-type": "application/json",
    }
    tracemalloc.start()
    try:
        with pytest.raises(BadMessage, match="unpacks to more than"):
            decode_arguments(envelope, {"compression": name}, {"body_encoding": "base64"})
        assert tracemalloc.get_traced_memory()[1] < 3 * MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["gzip", "bzip2", "lzma"])
def test_a_body_that_is_cut_short_is_refused(name: str) -> None:
    """Half of a body is no body."""
    packed, _ = compress(PLAIN * 100, name)
    with pytest.raises(ValueError, match=r"cut short|before the end"):
        decompress(packed[: len(packed) // 2], name)
