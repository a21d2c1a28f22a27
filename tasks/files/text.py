"""Read a text file of any encoding as UTF-8, and name the line at which that is not possible."""

import codecs
import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from millpond.tasks.errors import BadInput
from millpond.tasks.files.magic_numbers import HEAD_BYTES, detect_format

_CHUNK = 1024 * 1024
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Utf8Reader(io.RawIOBase):
    """A text file as UTF-8, without byte order mark and with its last line ended, in chunks.

    `advance` is called with the bytes consumed so far, once a chunk. Reading raises `BadInput` with the line
    of the first byte that the encoding does not allow, or of a zero byte. Closing it leaves the file open.
    """

    def __init__(self, file: BinaryIO, url: str, encoding: str, advance: Callable[[int], None]) -> None:
        super().__init__()
        self._file, self._url, self._encoding, self._advance = file, url, encoding, advance
        self._strict_decoder = _strict_decoder(encoding)
        self._as_it_is = codecs.lookup(encoding).name == "utf-8"
        self._ready = memoryview(b"")
        self._line, self._consumed, self._ended, self._broken = 1, 0, False, False

    def readable(self) -> bool:
        """Return True: this can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with decoded text. Return the number of bytes, 0 only at the end of the file."""
        while not self._ready and not self._ended:
            self._read_next()
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _read_next(self) -> None:
        """Read and convert the next chunk, and report the bytes consumed."""
        chunk = self._file.read(_CHUNK)
        if not self._consumed:
            self._refuse_another_format(chunk[:HEAD_BYTES])
        self._ready = memoryview(self._convert_chunk(chunk))
        self._consumed += len(chunk)
        self._ended = not chunk
        self._advance(self._consumed)

    def _convert_chunk(self, chunk: bytes) -> bytes:
        """Return a chunk as UTF-8. An empty chunk ends the file."""
        try:
            text = self._strict_decoder.decode(chunk, final=not chunk)
            converted = chunk if self._as_it_is else text.encode()
        except UnicodeError as error:
            raise self._encoding_error(chunk, error) from error
        if not self._consumed:
            converted = converted.removeprefix(codecs.BOM_UTF8)
        if (zero := converted.find(b"\0")) >= 0:
            line = self._line + converted.count(b"\n", 0, zero)
            raise BadInput(
                f"{self._url}, line {line}, holds a zero byte: this is no text in {self._encoding}"
            )
        self._line += converted.count(b"\n")
        if converted:
            self._broken = converted[-1:] not in (b"\n", b"\r")
        return converted if chunk or not self._broken else converted + b"\n"

    def _encoding_error(self, chunk: bytes, error: UnicodeError) -> BadInput:
        """Return the error for bytes that the encoding does not allow, with their line."""
        start, wrong = 0, "what stands there"
        if isinstance(error, UnicodeDecodeError):
            # In the error's object, the bytes that the decoder kept of the last chunk are before this one.
            start = max(0, error.start - (len(error.object) - len(chunk)))
            wrong = f"byte 0x{error.object[error.start]:02x}"
        line = self._line + chunk.count(b"\n", 0, start)
        tip = "give the encoding that the file has, such as encoding='cp1252' (--encoding cp1252) or 'utf-16'"
        return BadInput(f"{self._url}, line {line}: {wrong} is not {self._encoding}: {tip}")

    def _refuse_another_format(self, head: bytes) -> None:
        """Raise `BadInput` if the first bytes show a binary format or UTF-16."""
        if what := detect_format(head):
            raise BadInput(f"{self._url} is no text: it looks like {what}")
        if self._as_it_is and head.startswith(_UTF16_MARKS):
            raise BadInput(
                f"{self._url} is not {self._encoding}: it looks like UTF-16, give encoding='utf-16' "
                "(--encoding utf-16)"
            )


def _strict_decoder(encoding: str) -> codecs.IncrementalDecoder:
    """Return a strict decoder of a text encoding. Codecs that make bytes of bytes are not known here."""
    try:
        with suppress(UnicodeError):
            b"a".decode(encoding)
        return codecs.getincrementaldecoder(encoding)("strict")
    except LookupError as error:
        raise BadInput(
            f"no text encoding is called {encoding!r}: name one such as 'utf-8' or 'cp1252'"
        ) from error
