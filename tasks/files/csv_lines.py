"""Find lines in a CSV file: the header, the delimiter that it shows, and the line of an error.

pyarrow counts rows, people count lines. Blank lines and line breaks in quotes make the difference. Only the
header is read on a good file, so this may be slow, but never large.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Any, cast

from millpond.tasks.errors import BadInput

_LINE_CHARACTERS = 2 * 1024 * 1024
#: The line that spreadsheets write before the header: their delimiter.
_SAID = re.compile(r'^"?sep=([!#-~\t])"?\r?\n?$')
#: The delimiters that are tried, beside the one that belongs to the name's ending.
_DELIMITERS = ",;\t|"


class NoHeader(Exception):
    """No header row can be read. The message names the reason."""


def declared_delimiter(text: io.RawIOBase) -> str | None:
    """Return the delimiter of a first line `sep=X`, as Excel writes it. Return None without such a line."""
    try:
        match = _SAID.match(next(_read_lines(text), "")[:20])
    except csv.Error:
        return None
    return match.group(1) if match else None


def read_header(text: io.RawIOBase, delimiter: str, url: str, lines_before: int) -> tuple[int, list[str]]:
    """Return the line number and the fields of the first row that is not blank.

    `lines_before` lines are skipped. `text` is UTF-8. Raises `NoHeader` if no row can be read.
    """
    try:
        row = next(_read_rows(_read_lines(text, lines_before), delimiter, lines_before, strict=True), None)
    except csv.Error as error:
        raise NoHeader(f"{url}: no header can be read: {error}; is this a CSV file?") from error
    if row is None:
        raise NoHeader(f"{url} holds no header row: its first line must name the columns")
    return row


def refuse_ambiguous_delimiter(opened: Callable[[], io.RawIOBase], delimiter: str, url: str) -> None:
    """Raise `BadInput` if header and first row fit another delimiter as well or better: a person must say."""
    try:
        widths = {each: _count_columns(opened(), each) for each in {delimiter, *_DELIMITERS}}
    except csv.Error:
        return  # no row that long is taken apart for this
    own = widths.pop(delimiter)
    for other, width in sorted(widths.items()):
        if width[0] > 1 and width[0] >= own[0] and len(set(width)) == 1:
            raise BadInput(
                f"{url} has {own[0]} columns by {delimiter!r} and {width[0]} by {other!r}: "
                f"name its delimiter, such as delimiter={other!r} (--delimiter {other!r})"
            )


def find_ragged_row(
    text: io.RawIOBase, delimiter: str, width: int, lines_before: int, before_line: int | None
) -> tuple[int, int] | None:
    """Return the line and the number of columns of the first row that does not have `width` columns.

    With `before_line`, only rows that begin above that line are looked at.
    """
    rows = _read_rows(_read_lines(text, lines_before), delimiter, lines_before)
    try:
        above = takewhile(lambda row: before_line is None or row[0] < before_line, rows)
        return next(((line, len(row)) for line, row in above if len(row) != width), None)
    except csv.Error:
        return None


def line_of_row(text: io.RawIOBase, delimiter: str, index: int, lines_before: int) -> int | str:
    """Return the line at which the row of this index below the header begins, or `?` if there is none."""
    try:
        for at, (line, _) in enumerate(
            _read_rows(_read_lines(text, lines_before), delimiter, lines_before), -1
        ):
            if at == index:
                return line
    except csv.Error:
        pass
    return "?"


def line_of_longer_row(text: io.RawIOBase, limit: int) -> int:
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


def _count_columns(text: io.RawIOBase, delimiter: str) -> list[int]:
    """Return the numbers of columns that the header and the first row have with this delimiter."""
    return [len(row) for _, row in islice(_read_rows(_read_lines(text), delimiter), 2)] or [0]


def _read_lines(text: io.RawIOBase, skipped: int = 0) -> Iterator[str]:
    """Yield the lines. A long line ends the search, because csv would hold all its fields at once."""
    wrapped = io.TextIOWrapper(io.BufferedReader(cast(Any, text)), encoding="utf-8", newline="")
    while line := wrapped.readline(_LINE_CHARACTERS + 1):
        if len(line) > _LINE_CHARACTERS:
            raise csv.Error(f"a line is longer than {_LINE_CHARACTERS} characters")
        if skipped:
            skipped -= 1
            continue
        yield line


def _read_rows(
    lines: Iterator[str], delimiter: str, lines_before: int = 0, *, strict: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank with the number of the line at which it begins."""
    reader = csv.reader(lines, delimiter=delimiter, strict=strict)
    begins = lines_before + 1
    for row in reader:
        if row:
            yield begins, row
        begins = lines_before + reader.line_num + 1
