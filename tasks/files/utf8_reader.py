"""Read a text file of any encoding as UTF-8, with the line of an error."""

import codecs
import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from millpond.tasks.errors import BadInput
from millpond.tasks.files.magic_numbers import HEAD_BYTES, detect_format

#: Opens the text from its beginning; `begin_pass=True` if the whole file is to be read.
OpenText = Callable[..., "Utf8Reader"]

_CHUNK = 1024 * 1024
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Utf8Reader(io.RawIOBase):
    """The text of a file as UTF-8, without a byte order mark and with a line end at its end.

    `report_progress` is called after each chunk with the number of bytes read so far. Raises `BadInput` for
    an unknown encoding; while reading, with the line of the first byte that the encoding does not allow, or
    of a zero byte. `close` does not close the file.
    """

    def __init__(
        self, file: BinaryIO, url: str, encoding: str, report_progress: Callable[[int], None]
    ) -> None:
        super().__init__()
        self._file, self._url, self._encoding = file, url, encoding
        self._report_progress = report_progress
        self._decoder = _make_strict_decoder(encoding)
        self._is_utf8 = codecs.lookup(encoding).name == "utf-8"
        #: Converted text that is not yet read.
        self._converted = memoryview(b"")
        self._line, self._consumed = 1, 0
        self._is_at_end = self._lacks_line_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with converted text. Return the number of bytes; 0 only at the end of the file."""
        while not self._converted and not self._is_at_end:
            self._read_chunk()
        size = min(len(buffer), len(self._converted))
        buffer[:size] = self._converted[:size]
        self._converted = self._converted[size:]
        return size

    def _read_chunk(self) -> None:
        """Read and convert the next chunk, and report progress."""
        chunk = self._file.read(_CHUNK)
        if not self._consumed:
            self._refuse_other_format(chunk[:HEAD_BYTES])
        self._converted = memoryview(self._convert_chunk(chunk))
        self._consumed += len(chunk)
        self._is_at_end = not chunk
        self._report_progress(self._consumed)

    def _convert_chunk(self, chunk: bytes) -> bytes:
        """Return a chunk as UTF-8. An empty chunk is the end of the file. Raises `BadInput`."""
        try:
            text = self._decoder.decode(chunk, final=not chunk)
            converted = chunk if self._is_utf8 else text.encode()
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
            self._lacks_line_end = converted[-1:] not in (b"\n", b"\r")
        return converted if chunk or not self._lacks_line_end else converted + b"\n"

    def _encoding_error(self, chunk: bytes, error: UnicodeError) -> BadInput:
        """Return the error for bytes that the encoding does not allow, with their line."""
        start, subject = 0, "what stands there"
        if isinstance(error, UnicodeDecodeError):
            # In the error's object, the bytes that the decoder kept of the last chunk are before this one.
            start = max(0, error.start - (len(error.object) - len(chunk)))
            subject = f"byte 0x{error.object[error.start]:02x}"
        line = self._line + chunk.count(b"\n", 0, start)
        remedy = (
            "give the encoding that the file has, such as encoding='cp1252' (--encoding cp1252) or 'utf-16'"
        )
        return BadInput(f"{self._url}, line {line}: {subject} is not {self._encoding}: {remedy}")

    def _refuse_other_format(self, head: bytes) -> None:
        """Raise `BadInput` if the first bytes show a binary format, or UTF-16 in place of UTF-8."""
        if format_ := detect_format(head):
            raise BadInput(f"{self._url} is no text: it looks like {format_}")
        if self._is_utf8 and head.startswith(_UTF16_MARKS):
            raise BadInput(
                f"{self._url} is not {self._encoding}: it looks like UTF-16, give encoding='utf-16' "
                "(--encoding utf-16)"
            )


def _make_strict_decoder(encoding: str) -> codecs.IncrementalDecoder:
    """Return a strict decoder of a text encoding. Raises `BadInput` for any other codec, as base64."""
    try:
        with suppress(UnicodeError):
            b"a".decode(encoding)  # raises LookupError for a codec that is no text encoding
        return codecs.getincrementaldecoder(encoding)("strict")
    except LookupError as error:
        raise BadInput(
            f"no text encoding is called {encoding!r}: name one such as 'utf-8' or 'cp1252'"
        ) from error
