"""Decompress gzip, bzip2, xz and zstd piece by piece: no input, however made, makes one read large."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import zstandard

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.magic_numbers import SKIPPABLE_ZSTD, detect_format

_CHUNK = 64 * 1024
#: So much shows whether another stream begins.
_BEGINNING_BYTES = 8
#: The largest dictionary accepted: more than `xz -9` and `zstd --long=27` need.
MAX_WINDOW_BYTES = 128 * 1024 * 1024
#: zstd makes up to 128 KiB of 4 bytes, and python-zstandard returns all that a call's input makes.
_ZSTD_CHUNK = 1024
_ZSTD_HEAD_BYTES = 8


class Readable(Protocol):
    """A stream of bytes that is read from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none only at the end."""
        ...


class Decompressed:
    """The content of a compressed stream, and nothing after its end.

    With `many`, streams that follow each other are read as one, as the formats define it for files. Other
    data that follows is left alone, as gzip and tar do. Raises `BadInput`, with the name `name`, for a stream
    that is damaged or ends too early.
    """

    def __init__(
        self, packed: Readable, codec: str | Callable[[], Any], name: str, *, many: bool = True
    ) -> None:
        self._packed, self._codec, self._name, self._many = packed, codec, name, many
        self._make = _CODECS[codec] if isinstance(codec, str) else codec
        self._decompressor = self._make()
        self._input = b""

    def read(self, size: int, /) -> bytes:
        """Return at least one and at most `size` bytes, none at the end. Raises `BadInput`."""
        try:
            while not self._decompressor.eof or self._begin_next_stream():
                if self._decompressor.needs_input and not self._input:
                    self._input = self._packed.read(_CHUNK)
                    if not self._input:
                        raise BadInput(f"{self._name} ends too early: it was cut off")
                taken, self._input = self._input, b""
                output: bytes = self._decompressor.decompress(taken, size)
                if output:
                    return output
            return b""
        except _DAMAGE as error:
            raise _refusal_reason(self._name, error) from error

    def _begin_next_stream(self) -> bool:
        """Begin the stream that follows the one that ended. Zero bytes at the end are padding."""
        rest = self._decompressor.unused_data.lstrip(b"\0")
        while len(rest) < _BEGINNING_BYTES and (more := self._packed.read(_CHUNK)):
            rest = (rest + more).lstrip(b"\0")
        if not rest:
            return False
        if not self._many:
            raise BadInput(f"{self._name} is damaged: it goes on after its end")
        if detect_format(rest[:_BEGINNING_BYTES]) != self._codec:
            return False
        self._decompressor, self._input = self._make(), rest
        return True


class _Inflate:
    """zlib with the interface of bz2 and lzma."""

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


class _Zstd:
    """python-zstandard with the interface of bz2 and lzma, and a bound on the output of one call.

    A skippable frame is a stream of its own that makes nothing: RFC 8878, section 3.1.2.
    """

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
        self._input, self._output = b"", memoryview(b"")
        #: The bytes of a skippable frame that are to come; None in another frame, or if not known yet.
        self._to_skip: int | None = None
        self._is_begun = False

    @property
    def eof(self) -> bool:
        return (self._to_skip == 0 or self._inner.eof) and not self._output

    @property
    def needs_input(self) -> bool:
        return not self._output and not (self._input and self._is_begun)

    @property
    def unused_data(self) -> bytes:
        rest: bytes = self._inner.unused_data + self._input
        return rest

    def decompress(self, data: bytes, size: int) -> bytes:
        """Return at most `size` bytes of the content. The rest is kept for the next call."""
        self._input += data
        if not self._is_begun:
            self._begin_frame()
        if self._to_skip:
            skipped = min(self._to_skip, len(self._input))
            self._input, self._to_skip = self._input[skipped:], self._to_skip - skipped
        elif self._is_begun and not self._output and self._input:
            part, self._input = self._input[:_ZSTD_CHUNK], self._input[_ZSTD_CHUNK:]
            self._output = memoryview(self._inner.decompress(part))
        taken, self._output = self._output[:size], self._output[size:]
        return bytes(taken)

    def _begin_frame(self) -> None:
        """Start a frame by its first bytes, as soon as they are there. No frame is shorter."""
        if len(self._input) < _ZSTD_HEAD_BYTES:
            return
        self._is_begun = True
        if SKIPPABLE_ZSTD.match(self._input):
            self._to_skip = _ZSTD_HEAD_BYTES + int.from_bytes(self._input[4:_ZSTD_HEAD_BYTES], "little")


def raw_lzma_decompressor(properties: bytes, stream_name: str) -> Any:
    """Return a decompressor of LZMA without a container, by its five bytes of properties.

    Raises `BadInput` if they are invalid.
    """
    if len(properties) < 5 or properties[0] >= 9 * 5 * 5:
        raise BadInput(f"{stream_name} is damaged: its LZMA properties make no sense")
    rest, lc = divmod(properties[0], 9)
    pb, lp = divmod(rest, 5)
    window = int.from_bytes(properties[1:5], "little")
    if window > MAX_WINDOW_BYTES:
        raise BadInput(
            f"{stream_name} needs a dictionary of {window} bytes, over {MAX_WINDOW_BYTES}: refused"
        )
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": max(window, 4096), "lc": lc, "lp": lp, "pb": pb}]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


def _refusal_reason(stream_name: str, error: Exception) -> BadInput:
    """Return why a stream is refused: damaged, unless its reader says that a feature is not supported."""
    reason = str(error).lower()
    if isinstance(error, MemoryError) or "memory" in reason:  # xz's limit and zstd's, by their own words
        most = f"a dictionary of {MAX_WINDOW_BYTES} bytes at most"
        return TooLarge(
            f"{stream_name} needs more memory to unpack than it may have: compress it with {most}"
        )
    if "unsupported" in reason or "dictionary mismatch" in reason:
        return BadInput(f"{stream_name} is compressed in a way that is not supported here: {error}")
    return BadInput(f"{stream_name} is damaged: {error}")


_DAMAGE = (OSError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
_CODECS: dict[str, Callable[[], Any]] = {
    "deflate": lambda: _Inflate(-15),
    "gzip": lambda: _Inflate(31),
    "bzip2": bz2.BZ2Decompressor,
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_WINDOW_BYTES),
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW_BYTES),
    "zstd": _Zstd,
}
