"""Cut a body that comes in pieces into lines, holding no more than the longest line that is allowed."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Raw:
    """Hold a line by its number from 1; `text` is None where it was longer than allowed."""

    number: int
    text: bytes | None


class Lines:
    """Take pieces and give the lines that are whole; empty lines count but are not given."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""
        self._skips = False
        self._number = 0

    def cut(self, piece: bytes) -> Iterator[Raw]:
        """Yield the lines that end in this piece."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        for text in whole:
            self._number += 1
            if self._skips:
                self._skips = False
            elif len(text) > self._longest:
                yield Raw(self._number, None)
            elif text.strip():
                yield Raw(self._number, text)
        if self._skips:
            self._rest = b""
        elif len(self._rest) > self._longest:
            self._rest, self._skips = b"", True
            yield Raw(self._number + 1, None)

    def end(self) -> Iterator[Raw]:
        """Yield the last line, which needs no newline."""
        yield from self.cut(b"\n")
