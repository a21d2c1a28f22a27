"""Read the rows of a CSV in UTF-8 one at a time, each with its line and the position of the next row.

Only one row is in memory. Reading can start at any row, so that a campaign can be sent in chunks. A byte
order mark is allowed.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from millpond.tasks.errors import BadInput

#: A row may have many lines, within quotes, and is in memory as a whole.
MAX_ROW_BYTES = 1_000_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Position:
    """The position of a row: the numbers of rows, lines and bytes before it. All are 0 for the first row."""

    row: int = 0
    line: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Row:
    """One row: its number, from 0, its first line, from 1, its cells, and the position of the next row."""

    number: int
    line: int
    cells: list[str]
    after: Position


BEGINNING = Position()


def read_rows(stream: BinaryIO, start: Position = BEGINNING) -> tuple[list[str], Iterator[Row]]:
    """Return the column names, and the rows from a position in the file on.

    Raises `BadInput`, also later, for a file that is no CSV in UTF-8, for a row that is too long, and for a
    header without columns or with a column twice.
    """
    lines = _Lines(stream)
    columns = [name.strip() for name in _read_cells(csv.reader(lines, strict=True), lines) or []]
    if not any(columns):
        raise BadInput("the CSV has no header: its first line must name the columns")
    if duplicates := sorted({name for name in columns if columns.count(name) > 1}):
        raise BadInput(f"the CSV names the column {duplicates[0]!r} twice: rename one")
    if start.offset:
        lines.seek(start)
    return columns, _read_rows_from(lines, start.row)


def _read_rows_from(lines: "_Lines", number: int) -> Iterator[Row]:
    """Yield the remaining rows of the file, numbered from `number`. Blank lines are no rows."""
    reader = csv.reader(lines, strict=True)
    while True:
        first_line = lines.line + 1
        cells = _read_cells(reader, lines)
        if cells is None:
            return
        if cells:
            yield Row(number, first_line, cells, Position(number + 1, lines.line, lines.offset))
            number += 1


def _read_cells(reader: Iterator[list[str]], lines: "_Lines") -> list[str] | None:
    """Return the cells of the next row. Return None at the end. Raises `BadInput` with the line."""
    lines.begin_row()
    try:
        return next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        raise BadInput(f"the CSV cannot be read at line {lines.line}: {error}") from None


class _Lines:
    """Iterates over the decoded lines of a file, and counts the lines and bytes before the next one.

    Raises `BadInput` for a row of over `MAX_ROW_BYTES` bytes, and for a line that is not UTF-8.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.offset = 0
        self.line = 0
        self.begin_row()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(MAX_ROW_BYTES + 1 - self._row_bytes)
        if not raw:
            raise StopIteration
        self.line += 1
        self._row_bytes += len(raw)
        if self._row_bytes > MAX_ROW_BYTES:
            raise BadInput(
                f"the CSV has a row of over {MAX_ROW_BYTES} bytes, which begins at line {self._row_line}: "
                "is it a CSV?"
            )
        text = raw.removeprefix(_BYTE_ORDER_MARK) if not self.offset else raw
        self.offset += len(raw)
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as error:
            place = f"line {self.line}, byte {error.start + 1} of it"
            raise BadInput(f"the CSV is not UTF-8 at {place}: save it as UTF-8") from None

    def begin_row(self) -> None:
        """Begin the count of the bytes of another row, at the next line."""
        self._row_bytes, self._row_line = 0, self.line + 1

    def seek(self, position: Position) -> None:
        """Set the position from which the next line is read."""
        self._stream.seek(position.offset)
        self.offset, self.line = position.offset, position.line
