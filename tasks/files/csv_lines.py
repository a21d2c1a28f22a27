"""Find lines in a CSV file: the header, a declared delimiter, and the line of an error, counted from 1.

pyarrow counts rows, and people count lines, which differ by blank lines and line breaks in quotes. Of a good
file only the header is read here. So these functions may be slow, but use little memory.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Any, cast

from millpond.tasks.errors import BadInput

_CHUNK_BYTES = 64 * 1024
#: The maximum characters of a line that is searched, and of a row, which may have many lines within quotes.
_MAX_CHARACTERS = 2 * 1024 * 1024
#: The line with which spreadsheets declare their delimiter, before the header.
_DELIMITER_LINE = re.compile(r'^"?sep=([!#-~\t])"?\r?\n?$')
#: The delimiters that are tried besides the one in use.
_DELIMITERS = ",;\t|"


class NoHeader(Exception):
    """No header row can be read. The message names the reason."""


def read_declared_delimiter(text: io.RawIOBase) -> str | None:
    """Return X if the first line is `sep=X`, as Excel writes it. Return None without such a line."""
    try:
        match = _DELIMITER_LINE.match(next(_read_lines(text), "")[:20])
    except csv.Error:
        return None
    return match.group(1) if match else None


def read_header(text: io.RawIOBase, delimiter: str, url: str, lines_before: int) -> tuple[int, list[str]]:
    """Return the line number and the fields of the first row that is not blank.

    The first `lines_before` lines are skipped. `text` is UTF-8. Raises `NoHeader` if there is no such row.
    """
    try:
        row = next(_read_rows(_read_lines(text, lines_before), delimiter, lines_before, strict=True), None)
    except csv.Error as error:
        raise NoHeader(f"{url}: no header can be read: {error}; is this a CSV file?") from error
    if row is None:
        raise NoHeader(f"{url} holds no header row: its first line must name the columns")
    return row


def refuse_ambiguous_delimiter(open_text: Callable[[], io.RawIOBase], delimiter: str, url: str) -> None:
    """Raise `BadInput` if another delimiter fits the header and the first row as well as this one, or better.

    Such a delimiter makes at least as many columns, the same number in both rows. `open_text` opens the file
    from its beginning.
    """
    try:
        counts = {tried: _count_columns(open_text(), tried) for tried in {delimiter, *_DELIMITERS}}
    except csv.Error:
        return  # a row is too long to be searched
    columns = counts.pop(delimiter)[0]
    for alternative, (in_header, *in_row) in sorted(counts.items()):
        if in_header > 1 and in_header >= columns and in_row in ([], [in_header]):
            raise BadInput(
                f"{url} has {columns} columns by {delimiter!r} and {in_header} by {alternative!r}: "
                f"name its delimiter, such as delimiter={alternative!r} (--delimiter {alternative!r})"
            )


def find_ragged_row(
    text: io.RawIOBase, delimiter: str, width: int, lines_before: int, before_line: int | None
) -> tuple[int, int] | None:
    """Return the line and the number of columns of the first row that does not have `width` columns.

    With `before_line`, only rows that begin above that line count. Return None if there is no such row, or if
    a line is too long to be searched.
    """
    rows = _read_rows(_read_lines(text, lines_before), delimiter, lines_before)
    try:
        candidates = takewhile(lambda row: before_line is None or row[0] < before_line, rows)
        return next(((line, len(row)) for line, row in candidates if len(row) != width), None)
    except csv.Error:
        return None


def find_line_of_row(text: io.RawIOBase, delimiter: str, index: int, lines_before: int) -> int | str:
    """Return the line at which a row begins; `?` if it is not found. Index 0 is the row below the header."""
    rows = _read_rows(_read_lines(text, lines_before), delimiter, lines_before)
    try:
        return next(line for line, _ in islice(rows, index + 1, None))
    except (csv.Error, StopIteration):
        return "?"


def find_line_of_offset(text: io.RawIOBase, offset: int) -> int:
    """Return the line of the byte at this offset, for any of the three line ends."""
    line, last_byte, bytes_left = 1, b"", offset
    while bytes_left and (chunk := text.read(min(_CHUNK_BYTES, bytes_left))):
        line += chunk.count(b"\n") + chunk.count(b"\r") - chunk.count(b"\r\n")
        line -= last_byte == b"\r" and chunk.startswith(b"\n")
        last_byte, bytes_left = chunk[-1:], bytes_left - len(chunk)
    return line


def find_line_of_longer_row(text: io.RawIOBase, limit: int) -> int:
    """Return the line at which the first row of more than `limit` bytes begins. Its length is not limited."""
    line, row_line, row_length, in_quotes = 1, 1, 0, False
    while chunk := text.read(_CHUNK_BYTES):
        for piece in chunk.splitlines(keepends=True):
            in_quotes ^= bool(piece.count(b'"') % 2)
            row_length += len(piece)
            if row_length > limit:
                return row_line
            if piece.endswith((b"\n", b"\r")):
                line += 1
                if not in_quotes:
                    row_line, row_length = line, 0
    return row_line


def _count_columns(text: io.RawIOBase, delimiter: str) -> list[int]:
    """Return the numbers of columns of the header and of the first row; `[0]` for a file without rows."""
    return [len(row) for _, row in islice(_read_rows(_read_lines(text), delimiter), 2)] or [0]


def _read_lines(text: io.RawIOBase, skipped: int = 0) -> Iterator[str]:
    """Yield the lines after `skipped` ones. Raises `csv.Error` at a line of too many characters."""
    wrapped = io.TextIOWrapper(io.BufferedReader(cast(Any, text)), encoding="utf-8", newline="")
    while line := wrapped.readline(_MAX_CHARACTERS + 1):
        if len(line) > _MAX_CHARACTERS:
            raise csv.Error(f"a line is longer than {_MAX_CHARACTERS} characters")
        if skipped:
            skipped -= 1
            continue
        yield line


def _read_rows(
    lines: Iterator[str], delimiter: str, lines_before: int = 0, *, strict: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with the number of the line at which it begins.

    `lines_before` is the number of lines before the first of `lines`. Raises `csv.Error` at a row of too many
    characters.
    """
    row_characters = 0

    def count_characters() -> Iterator[str]:
        nonlocal row_characters
        for line in lines:
            row_characters += len(line)
            if row_characters > _MAX_CHARACTERS:
                raise csv.Error(f"a row is longer than {_MAX_CHARACTERS} characters")
            yield line

    reader = csv.reader(count_characters(), delimiter=delimiter, strict=strict)
    first_line = lines_before + 1
    for row in reader:
        row_characters = 0
        if row:
            yield first_line, row
        first_line = lines_before + reader.line_num + 1
