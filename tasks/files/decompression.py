"""Decompress gzip, bzip2, xz, zstd, deflate and LZMA in pieces, whose size no input can exceed."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import zstandard

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.magic_numbers import SKIPPABLE_ZSTD, detect_format

_CHUNK = 64 * 1024
#: The first bytes that show whether another stream begins.
_STREAM_HEAD_BYTES = 8
#: The largest dictionary that is accepted: more than `xz -9` and `zstd --long=27` need.
MAX_WINDOW_BYTES = 128 * 1024 * 1024
#: How much zstd decompresses at a time. 4 bytes may become 128 KiB, and python-zstandard returns all at once.
_ZSTD_CHUNK = 1024
_ZSTD_HEAD_BYTES = 8


class Readable(Protocol):
    """A stream of bytes that is read from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; no bytes only at the end."""
        ...


class DecompressedStream:
    """The content of a compressed stream, decompressed as it is read.

    `codec` is a format, or a function that makes a decompressor. With `multiple`, further streams that follow
    are read, too, as the formats define it for files; other data that follows is ignored, as gzip and tar do.
    `name` is the stream's name in errors.
    """

    def __init__(
        self, packed: Readable, codec: str | Callable[[], Any], name: str, *, multiple: bool = True
    ) -> None:
        self._packed, self._codec, self._name, self._multiple = packed, codec, name, multiple
        self._make_decompressor = _CODECS[codec] if isinstance(codec, str) else codec
        self._decompressor = self._make_decompressor()
        self._input = b""

    def read(self, size: int, /) -> bytes:
        """Return from 1 to `size` bytes; none at the end. Raises `BadInput` for a damaged stream."""
        try:
            while not self._decompressor.eof or self._begin_next_stream():
                if self._decompressor.needs_input and not self._input:
                    self._input = self._packed.read(_CHUNK)
                    if not self._input:
                        raise BadInput(f"{self._name} ends too early: it was cut off")
                compressed, self._input = self._input, b""
                output: bytes = self._decompressor.decompress(compressed, size)
                if output:
                    return output
            return b""
        except _DAMAGE as error:
            raise _refusal_error(self._name, error) from error

    def _begin_next_stream(self) -> bool:
        """Begin the next stream after the end of one, and return True. Return False if there is none.

        Zero bytes between streams and at the end are padding. Raises `BadInput` for a second stream unless
        `multiple`.
        """
        following = self._decompressor.unused_data.lstrip(b"\0")
        while len(following) < _STREAM_HEAD_BYTES and (chunk := self._packed.read(_CHUNK)):
            following = (following + chunk).lstrip(b"\0")
        if not following:
            return False
        if not self._multiple:
            raise BadInput(f"{self._name} is damaged: it goes on after its end")
        if detect_format(following[:_STREAM_HEAD_BYTES]) != self._codec:
            return False
        self._decompressor, self._input = self._make_decompressor(), following
        return True


class _ZlibDecompressor:
    """A decompressor of zlib with the interface of those of bz2 and lzma."""

    def __init__(self, window_bits: int) -> None:
        self._inner = zlib.decompressobj(window_bits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, size: int) -> bytes:
        output = self._inner.decompress(self._inner.unconsumed_tail + data, size)
        self.needs_input = not self._inner.unconsumed_tail and len(output) < size
        return output


class _ZstdDecompressor:
    """A decompressor of python-zstandard with the interface of those of bz2 and lzma, for one frame.

    A skippable frame (RFC 8878, section 3.1.2) has no content.
    """

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
        self._input, self._output = b"", memoryview(b"")
        #: The remaining bytes of a skippable frame; None for another frame, and before the frame is begun.
        self._bytes_to_skip: int | None = None
        #: True once the first bytes of the frame have been read.
        self._is_begun = False

    @property
    def eof(self) -> bool:
        return (self._bytes_to_skip == 0 or self._inner.eof) and not self._output

    @property
    def needs_input(self) -> bool:
        return not self._output and not (self._input and self._is_begun)

    @property
    def unused_data(self) -> bytes:
        unused: bytes = self._inner.unused_data + self._input
        return unused

    def decompress(self, data: bytes, size: int) -> bytes:
        """Return at most `size` bytes of the content. Further output remains for the next call."""
        self._input += data
        if not self._is_begun:
            self._begin_frame()
        if self._bytes_to_skip:
            skipped = min(self._bytes_to_skip, len(self._input))
            self._input, self._bytes_to_skip = self._input[skipped:], self._bytes_to_skip - skipped
        elif self._is_begun and not self._output and self._input:
            part, self._input = self._input[:_ZSTD_CHUNK], self._input[_ZSTD_CHUNK:]
            self._output = memoryview(self._inner.decompress(part))
        output, self._output = self._output[:size], self._output[size:]
        return bytes(output)

    def _begin_frame(self) -> None:
        """Find the type of the frame, once its first bytes are there. No frame is shorter than these."""
        if len(self._input) < _ZSTD_HEAD_BYTES:
            return
        self._is_begun = True
        if SKIPPABLE_ZSTD.match(self._input):
            self._bytes_to_skip = _ZSTD_HEAD_BYTES + int.from_bytes(self._input[4:_ZSTD_HEAD_BYTES], "little")


def make_raw_lzma_decompressor(properties: bytes, stream_name: str) -> Any:
    """Return a decompressor of LZMA without a container. `properties` are the first five bytes of LZMA.

    Raises `BadInput` if they are invalid, or need too large a dictionary.
    """
    if len(properties) < 5 or properties[0] >= 9 * 5 * 5:
        raise BadInput(f"{stream_name} is damaged: its LZMA properties make no sense")
    # The first byte is (pb * 5 + lp) * 9 + lc: the bits of the position, its literals, and their context.
    pb, lp, lc = properties[0] // 45, properties[0] // 9 % 5, properties[0] % 9
    dictionary = int.from_bytes(properties[1:5], "little")
    if dictionary > MAX_WINDOW_BYTES:
        raise BadInput(
            f"{stream_name} needs a dictionary of {dictionary} bytes, over {MAX_WINDOW_BYTES}: refused"
        )
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096), "lc": lc, "lp": lp, "pb": pb}]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


def _refusal_error(stream_name: str, error: Exception) -> BadInput:
    """Return the task error for an error of a decompressor: too much memory, not supported, or damaged."""
    reason = str(error).lower()
    if isinstance(error, MemoryError) or "memory" in reason:  # the words of xz and zstd for their limits
        return TooLarge(
            f"{stream_name} needs more memory to unpack than it may have: compress it with a dictionary of "
            f"{MAX_WINDOW_BYTES} bytes at most"
        )
    if "unsupported" in reason or "dictionary mismatch" in reason:
        return BadInput(f"{stream_name} is compressed in a way that is not supported here: {error}")
    return BadInput(f"{stream_name} is damaged: {error}")


#: The errors of decompressors.
_DAMAGE = (OSError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
#: The decompressor of each format.
_CODECS: dict[str, Callable[[], Any]] = {
    "deflate": lambda: _ZlibDecompressor(-zlib.MAX_WBITS),  # without a header
    "gzip": lambda: _ZlibDecompressor(zlib.MAX_WBITS + 16),  # with the header of gzip
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW_BYTES),
    "zstd": _ZstdDecompressor,
}
