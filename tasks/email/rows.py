"""Read the rows of a CSV one at a time, each with its line and with the place where the next one begins.

A file of any size takes the memory of one row. Reading can go on where a row ended, so that a campaign
is sent in pieces. UTF-8, with or without a byte order mark.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from millpond.tasks.errors import BadInput

MAX_LINE_BYTES = 1_000_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Place:
    """Say where the next row begins: the rows, lines and bytes before it. All zero: behind the header."""

    row: int = 0
    line: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Row:
    """Hold one row: its number from 0, the line that it begins at, from 1, and the place behind it."""

    number: int
    line: int
    cells: list[str]
    after: Place


BEGINNING = Place()


def rows(stream: BinaryIO, start: Place = BEGINNING) -> tuple[list[str], Iterator[Row]]:
    """Return the column names and the rows from `start`, which was `after` a row of the same file.

    Raises `BadInput` that names the line: not UTF-8, not CSV, a line without end, no columns, a column twice.
    """
    lines = _Lines(stream)
    columns = [name.strip() for name in _next(csv.reader(lines, strict=True), lines) or []]
    if not any(columns):
        raise BadInput("the CSV has no header: its first line must name the columns")
    doubled = sorted({name for name in columns if columns.count(name) > 1})
    if doubled:
        raise BadInput(f"the CSV names the column {doubled[0]!r} twice: rename one")
    if start.offset:
        lines.go_to(start)
    return columns, _rest(lines, start.row)


def _rest(lines: "_Lines", number: int) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True)
    while True:
        first_line = lines.line + 1
        cells = _next(reader, lines)
        if cells is None:
            return
        if cells:  # a blank line is no row
            yield Row(number, first_line, cells, Place(number + 1, lines.line, lines.offset))
            number += 1


def _next(reader: Iterator[list[str]], lines: "_Lines") -> list[str] | None:
    try:
        return next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        raise BadInput(f"the CSV cannot be read at line {lines.line}: {error}") from None


class _Lines:
    """Give a CSV reader its lines and count what it took: it asks for a line only when it needs one."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.offset = 0
        self.line = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(MAX_LINE_BYTES + 1)
        if not raw:
            raise StopIteration
        self.line += 1
        if len(raw) > MAX_LINE_BYTES:
            raise BadInput(f"the CSV has over {MAX_LINE_BYTES} bytes in line {self.line}: is it a CSV?")
        text = raw.removeprefix(_BYTE_ORDER_MARK) if not self.offset else raw
        self.offset += len(raw)
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as error:
            where = f"line {self.line}, byte {error.start + 1} of it"
            raise BadInput(f"the CSV is not UTF-8 at {where}: save it as UTF-8") from None

    def go_to(self, place: Place) -> None:
        """Go on behind a row that was read earlier."""
        self._stream.seek(place.offset)
        self.offset, self.line = place.offset, place.line
