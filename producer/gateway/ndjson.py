"""Split a body that comes in pieces into lines. The memory is bounded by the longest line that is allowed."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """A line and its number, from 1. `text` is None if it was longer than allowed."""

    number: int
    text: bytes | None


class LineSplitter:
    """Splits pieces into lines of at most `max_bytes` bytes. Empty lines are counted and left out.

    A longer line is yielded without its text, and its other pieces are skipped.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        #: The start of the line that has not ended yet. A bytearray grows in place, without a copy a piece.
        self._rest = bytearray()
        self._is_skipping = False
        self._number = 0

    def split_lines(self, piece: bytes) -> Iterator[Line]:
        """Yield the lines that end in this piece, and a line that becomes too long in it."""
        *line_ends, rest = piece.split(b"\n")
        for end in line_ends:
            self._number += 1
            text = bytes(self._rest) + end if self._rest else end
            self._rest.clear()
            if self._is_skipping:
                self._is_skipping = False
            elif len(text) > self._max_bytes:
                yield Line(self._number, None)
            elif text.strip():
                yield Line(self._number, text)
        if self._is_skipping:
            return
        self._rest += rest
        if len(self._rest) > self._max_bytes:
            self._rest.clear()
            self._is_skipping = True
            yield Line(self._number + 1, None)

    def last_line(self) -> Iterator[Line]:
        """Yield the last line if it does not end with a newline."""
        yield from self.split_lines(b"\n")
