"""Split a body that comes in pieces into lines, in the memory of the longest line that is allowed."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """A line and its number, from 1. `text` is None if it was longer than allowed."""

    number: int
    text: bytes | None


class LineSplitter:
    """Splits pieces into lines of at most `max_bytes` bytes. Empty lines are counted and left out."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # Grows in place: bytes would be copied for each piece, in all the square of a line's length.
        self._rest = bytearray()
        self._skips = False
        self._number = 0

    def split_lines(self, piece: bytes) -> Iterator[Line]:
        """Yield the lines that end in this piece."""
        *ended, begun = piece.split(b"\n")
        for end in ended:
            self._number += 1
            text = bytes(self._rest) + end if self._rest else end
            self._rest.clear()
            if self._skips:
                self._skips = False
            elif len(text) > self._max_bytes:
                yield Line(self._number, None)
            elif text.strip():
                yield Line(self._number, text)
        if self._skips:
            return
        self._rest += begun
        if len(self._rest) > self._max_bytes:
            self._rest.clear()
            self._skips = True
            yield Line(self._number + 1, None)

    def last_line(self) -> Iterator[Line]:
        """Yield the last line, which needs no newline."""
        yield from self.split_lines(b"\n")
