"""Find lines in a CSV file: the header, and the one that an error is about.

pyarrow counts rows, people count lines; blank lines and line breaks in quotes make the difference. Only the
header is read on a good file, so this may be slow, but never large.
"""

import csv
import io
from collections.abc import Iterator
from typing import Any, cast

from millpond.tasks.errors import BadInput

_LINE_CHARACTERS = 2 * 1024 * 1024


def header(text: io.RawIOBase, delimiter: str, url: str) -> tuple[int, list[str]]:
    """Return the line and the fields of the first row; raise `BadInput` where none can be read."""
    try:
        row = next(_rows(_lines(text), delimiter), None)
    except csv.Error as error:
        raise BadInput(f"{url}: no header can be read: {error}; is this a CSV file?") from error
    if row is None:
        raise BadInput(f"{url} holds no header row: its first line must name the columns")
    return row


def first_of_other_width(text: io.RawIOBase, delimiter: str, width: int) -> tuple[int, int] | None:
    """Return the line and the number of columns of the first row that has not `width` of them."""
    try:
        return next(
            ((line, len(row)) for line, row in _rows(_lines(text), delimiter) if len(row) != width), None
        )
    except csv.Error:
        return None


def line_of_row(text: io.RawIOBase, delimiter: str, index: int) -> int | str:
    """Return the line at which the row of this index below the header begins, `?` where it is not found."""
    try:
        for at, (line, _) in enumerate(_rows(_lines(text), delimiter), -1):
            if at == index:
                return line
    except csv.Error:
        pass
    return "?"


def first_longer(text: io.RawIOBase, limit: int) -> int:
    """Return the line at which the first row longer than `limit` bytes begins, however long it is."""
    line, begins, length, quoted = 1, 1, 0, False
    while chunk := text.read(64 * 1024):
        for piece in chunk.splitlines(keepends=True):
            quoted ^= bool(piece.count(b'"') % 2)
            length += len(piece)
            if length > limit:
                return begins
            if piece.endswith((b"\n", b"\r")):
                line += 1
                if not quoted:
                    begins, length = line, 0
    return begins


def _lines(text: io.RawIOBase) -> Iterator[str]:
    """Yield the lines; a long one ends the search, for csv would hold all its fields at once."""
    wrapped = io.TextIOWrapper(io.BufferedReader(cast(Any, text)), encoding="utf-8", newline="")
    while line := wrapped.readline(_LINE_CHARACTERS + 1):
        if len(line) > _LINE_CHARACTERS:
            raise csv.Error(f"a line is longer than {_LINE_CHARACTERS} characters")
        yield line


def _rows(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank with the number of the line at which it begins."""
    reader = csv.reader(lines, delimiter=delimiter)
    begins = 1
    for row in reader:
        if row:
            yield begins, row
        begins = reader.line_num + 1
