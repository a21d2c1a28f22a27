"""Check the quotes of a CSV file while it is read. All rows after a quote that never closes would be lost.

By RFC 4180, a quote opens at the beginning of a field, is doubled inside, and closes at the end of the field.
Parsers accept more: they add text between a closing quote and the delimiter to the value, and the end of the
file closes any quote. A quote inside a field that does not begin with one is an ordinary character.
"""

import io
import re
from typing import Any, cast

_CHUNK = 1024 * 1024
#: The most pieces in one match. A possessive repeat of alternatives would need no maximum, but it is wrong or
#: does not end before Python 3.11.5 (gh-106052).
_MAX_PIECES = 10_000


class QuoteFault(Exception):
    """A quote at the byte `offset` that opens a field and is not closed at the field's end.

    `closes` is True if it is closed in the middle of the field, before the characters `text`. It is False if
    it is never closed.
    """

    def __init__(self, offset: int, *, closes: bool, text: bytes = b"") -> None:
        super().__init__(offset)
        self.offset, self.closes, self.text = offset, closes, text


class QuoteCheck:
    """Checks the quotes in the chunks of a file, in order, in constant memory."""

    def __init__(self, delimiter: str) -> None:
        ends = re.escape(delimiter).encode() + rb"\r\n"
        #: Pieces of text without a fault: anything but quotes, a quote inside a field, a whole quoted field.
        self._sound = re.compile(
            rb'(?:[^"]++|(?<![%b])"|(?<=[%b])"[^"]*+(?:""[^"]*+)*+"(?=[%b])){1,%d}'
            % (ends, ends, ends, _MAX_PIECES)
        )
        #: The beginning of a quoted field, up to its closing quote or the end of the data.
        self._quoted = re.compile(rb'"[^"]*+(?:""[^"]*+)*+')
        #: The last byte that was checked and its offset. The first field needs a line end before it. If a
        #: quoted field is incomplete, its opening quote follows, and a quote that may close it.
        self._unchecked, self._offset = b"\n", -1
        #: The number of bytes of the incomplete field that are not in `_unchecked`.
        self._dropped_bytes = 0

    def check_chunk(self, chunk: bytes) -> None:
        """Check the fields that this chunk completes. An empty chunk ends the file. Raises `QuoteFault`."""
        if not chunk:
            if len(self._unchecked) > 1:
                raise QuoteFault(self._offset + 1, closes=False)
            return
        data = self._unchecked + chunk
        checked = 0
        while match := self._sound.match(data, checked):
            checked = match.end()
        if checked > 1:  # otherwise the field that was incomplete still is
            self._offset, self._dropped_bytes = self._offset + checked - 1 + self._dropped_bytes, 0
        if checked == len(data):
            self._unchecked = data[-1:]
            return
        end = self._find_end_of_open_field(data, checked)
        self._unchecked = data[checked - 1 : checked + 1] + data[end:]
        self._dropped_bytes += end - checked - 1

    def _find_end_of_open_field(self, data: bytes, start: int) -> int:
        """Return the index after the content, so far, of the quoted field that opens at `start`.

        It is the end of the data, or a quote there. Raises `QuoteFault` if the field closes before its end.
        """
        match = self._quoted.match(data, start)
        assert match is not None
        if match.end() + 1 < len(data):
            text = data[match.end() + 1 : match.end() + 21].splitlines()[0]
            raise QuoteFault(self._offset + 1, closes=True, text=text)
        return match.end()


class QuoteCheckingReader(io.RawIOBase):
    """A stream with the bytes of another one, whose quotes it checks as they are read."""

    def __init__(self, text: io.RawIOBase, delimiter: str) -> None:
        super().__init__()
        self._text, self._check = text, QuoteCheck(delimiter)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the text. Raises `QuoteFault`."""
        count = cast(Any, self._text).readinto(buffer)
        self._check.check_chunk(bytes(buffer[:count]))
        return int(count)


def find_first_fault(text: io.RawIOBase, delimiter: str) -> QuoteFault | None:
    """Return the first fault in the rest of a text. Return None if there is none."""
    check = QuoteCheck(delimiter)
    try:
        while chunk := text.read(_CHUNK):
            check.check_chunk(chunk)
        check.check_chunk(b"")
    except QuoteFault as fault:
        return fault
    return None
