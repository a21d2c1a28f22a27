"""Check the quotes of a CSV file while it is read: one that never closes swallows the rows behind it.

As RFC 4180 has it, a quote opens at the beginning of a field, is doubled inside, and closes at the end of the
field. Parsers take less: text between a closing quote and the delimiter is added to the value, and the
end of the file closes any quote. A quote inside a field that does not begin with one is a character.
"""

import io
import re
from typing import Any, cast

_CHUNK = 1024 * 1024
#: Fields that are matched at once. A possessive repeat of alternatives needs no bound, but is wrong or never
#: ends before Python 3.11.5 (gh-106052).
_PIECES = 10_000


class QuoteFault(Exception):
    """A quote that opens a field and does not end it, at `offset` in bytes.

    `closes` is True if it is closed in the middle of its field, before the characters `text`.
    """

    def __init__(self, offset: int, *, closes: bool, text: bytes = b"") -> None:
        super().__init__(offset)
        self.offset, self.closes, self.text = offset, closes, text


class QuoteCheck:
    """A check of quotes, fed with the chunks of a file in order, the last one empty.

    Raises the first `QuoteFault`. It keeps only the field that the last chunk left open.
    """

    def __init__(self, delimiter: str) -> None:
        ends = re.escape(delimiter).encode() + rb"\r\n"
        self._sound = re.compile(
            rb'(?:[^"]++|(?<![%b])"|(?<=[%b])"[^"]*+(?:""[^"]*+)*+"(?=[%b])){1,%d}'
            % (ends, ends, ends, _PIECES)
        )
        self._quoted = re.compile(rb'"[^"]*+(?:""[^"]*+)*+')
        # The pattern needs a line end before the first field.
        self._held, self._held_at = b"\n", -1

    def check_chunk(self, chunk: bytes) -> None:
        """Check the fields that this chunk completes. Raises `QuoteFault`."""
        if not chunk:
            if len(self._held) > 1:
                raise QuoteFault(self._held_at + 1, closes=False)
            return
        data = self._held + chunk
        sound = 0
        while match := self._sound.match(data, sound):
            sound = match.end()
        if sound < len(data):
            self._refuse_closed(data, sound)
        # One byte more shows whether the next field begins there.
        self._held, self._held_at = data[sound - 1 :], self._held_at + sound - 1

    def _refuse_closed(self, data: bytes, at: int) -> None:
        """Raise `QuoteFault` unless the field that opens here may go on in the next chunk."""
        match = self._quoted.match(data, at)
        assert match is not None
        if match.end() + 1 < len(data):
            text = data[match.end() + 1 : match.end() + 21].splitlines()[0]
            raise QuoteFault(self._held_at + at, closes=True, text=text)


class QuotesChecked(io.RawIOBase):
    """A text stream that passes bytes on unchanged and checks their quotes meanwhile."""

    def __init__(self, text: io.RawIOBase, delimiter: str) -> None:
        super().__init__()
        self._text, self._check = text, QuoteCheck(delimiter)

    def readable(self) -> bool:
        """Return True: this can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the text. Raises `QuoteFault`."""
        count = cast(Any, self._text).readinto(buffer)
        self._check.check_chunk(bytes(buffer[:count]))
        return int(count)


def first_fault(text: io.RawIOBase, delimiter: str) -> QuoteFault | None:
    """Return the first fault of a text from its beginning."""
    check = QuoteCheck(delimiter)
    try:
        while chunk := text.read(_CHUNK):
            check.check_chunk(chunk)
        check.check_chunk(b"")
    except QuoteFault as fault:
        return fault
    return None


def line_at(text: io.RawIOBase, offset: int) -> int:
    """Return the number of the line that holds the byte at this offset."""
    line, before, bytes_left = 1, b"", offset
    while bytes_left and (chunk := text.read(min(_CHUNK, bytes_left))):
        line += chunk.count(b"\n") + chunk.count(b"\r") - chunk.count(b"\r\n")
        line -= before == b"\r" and chunk.startswith(b"\n")
        before, bytes_left = chunk[-1:], bytes_left - len(chunk)
    return line
