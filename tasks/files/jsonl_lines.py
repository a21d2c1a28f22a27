"""Read JSONL in blocks of whole lines, which can be parsed with limited memory and a limited stack.

A block that pyarrow cannot parse is parsed here, line by line, without rounding a number.
"""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import isinf
from typing import Any

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.columns import is_exact_double
from millpond.tasks.files.escaping import escape_untrusted

#: How much is read at a time.
BLOCK_BYTES = 1024 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
#: The maximum nesting. Parquet readers accept 100 levels, and an array takes three of these. pyarrow's parser
#: is recursive: some ten thousand levels overflow the stack and end the process.
MAX_DEPTH = 32
#: The maximum of objects times names in memory: a value that an object lacks takes memory, too.
MAX_CELLS = 4_000_000

# No text begins after a backslash: without this condition, or without `*+`, a hostile line takes quadratic
# time.
_NAME = re.compile(rb'(?<!\\)"([^"\\]*+(?:\\.[^"\\]*+)*+)"\s*+:')
_TEXT = re.compile(rb'(?<!\\)"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


@dataclass(frozen=True)
class Block:
    """Whole lines as they are in the file, the number of the first line, and the number of rows.

    A row is a line that is not blank.
    """

    url: str
    first_line: int
    data: bytes
    rows: int = 0

    def numbered_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each row with the number of its line, without the spaces around it."""
        for number, line in enumerate(self.data.split(b"\n"), self.first_line):
            if line := line.strip():
                yield number, line

    def find_names(self) -> set[bytes]:
        """Return all names in the objects, at any depth. A text that looks like a name is included."""
        return set(_NAME.findall(self.data))

    def find_line_of_row(self, index: int) -> int:
        """Return the number of the line of a row. The first row has the index 0."""
        return next(islice(self.numbered_lines(), index, None))[0]


def read_blocks(text: io.RawIOBase, url: str) -> Iterator[Block]:
    """Yield a file in blocks. Raises `TooLarge` for a line of more than `MAX_LINE_BYTES`."""
    line, incomplete = 1, b""
    while chunk := text.read(BLOCK_BYTES):
        end = chunk.rfind(b"\n") + 1
        if len(incomplete) + (chunk.find(b"\n") if end else len(chunk)) > MAX_LINE_BYTES:
            raise TooLarge(f"{url}, line {line}, is longer than {MAX_LINE_BYTES} bytes: is this JSONL?")
        if end:
            yield Block(url, line, incomplete + chunk[:end])
            line, incomplete = line + chunk.count(b"\n"), chunk[end:]
        else:
            incomplete += chunk
    if incomplete:
        yield Block(url, line, incomplete)


def split_block(block: Block, width: int) -> Iterator[Block]:
    """Split a block at line ends into blocks of at most `MAX_CELLS` values.

    The values of a line are its objects, nested ones included, times `width`, the number of names that an
    object may have: a value that is absent takes memory, too. Raises `BadInput` for a line that is not an
    object, and `TooLarge` for a line that nests too deep, or that alone has more than `MAX_CELLS` values.
    """
    lines: list[bytes] = []
    first_line, cells, rows = block.first_line, 0, 0
    for number, line in enumerate(block.data.split(b"\n"), block.first_line):
        line_cells = _count_objects(line.strip(), block.url, number) * width
        if line_cells > MAX_CELLS:
            raise TooLarge(f"{block.url}, line {number}: over {MAX_CELLS} values, counting absent ones")
        if cells + line_cells > MAX_CELLS:
            yield Block(block.url, first_line, b"\n".join(lines), rows)
            lines, first_line, cells, rows = [], number, 0, 0
        lines.append(line)
        cells, rows = cells + line_cells, rows + bool(line_cells)
    if rows:
        yield Block(block.url, first_line, b"\n".join(lines), rows)


def parse_block(block: Block) -> list[dict[str, Any]]:
    """Return the objects of a block, parsed by Python, for the blocks that pyarrow cannot parse.

    Raises `BadInput` with the line and column at fault.
    """
    return [_parse_line(line, block.url, number) for number, line in block.numbered_lines()]


def _count_objects(line: bytes, url: str, number: int) -> int:
    """Return the number of objects on a line, nested ones included; 0 for an empty line.

    Raises `BadInput` if the line is not an object, and `TooLarge` if it nests deeper than `MAX_DEPTH`.
    """
    if not line:
        return 0
    if line[:1] != b"{" or line[-1:] != b"}":
        raise _not_an_object_error(line, url, number)
    objects = line.count(b"{")
    if objects + line.count(b"[") > MAX_DEPTH and _measure_depth(line) > MAX_DEPTH:
        raise TooLarge(f"{url}, line {number}, nests deeper than {MAX_DEPTH} levels")
    return objects


def _not_an_object_error(line: bytes, url: str, number: int) -> BadInput:
    """Return the error for a line that is not one JSON object."""
    if line[:1] == b"[":
        return BadInput(
            f"{url}, line {number}, begins an array: JSONL has one object a line, without brackets"
        )
    fault = _describe_fault_after_brace(line) if line[:1] == b"{" else "is not a JSON object"
    return BadInput(f"{url}, line {number}, {fault}: {escape_untrusted(line[:40].decode(errors='replace'))}")


def _describe_fault_after_brace(line: bytes) -> str:
    """Return the fault of a line that begins with a brace and does not end with one."""
    text = line.decode(errors="replace")
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return "ends before its object does"
    if text[end:].strip() == ",":  # the line was cut out of an array
        return "has a comma after its object: JSONL has none"
    return "has text after its object: JSONL has one object a line"


def _measure_depth(line: bytes) -> int:
    """Return the greatest depth of brackets outside of texts."""
    depth = deepest = 0
    for bracket in _TEXT.sub(b"", line).translate(None, _ALL_BUT_BRACKETS):
        depth += 1 if bracket in b"{[" else -1
        deepest = max(deepest, depth)
    return deepest


def _parse_line(line: bytes, url: str, number: int) -> dict[str, Any]:
    """Return the object on a line. Raises `BadInput` with the line and column at fault."""
    try:
        row: dict[str, Any] = json.loads(
            line, object_pairs_hook=_refuse_duplicate_names, parse_float=_parse_number
        )
        if b"\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()
        return row
    except json.JSONDecodeError as error:
        fault = f"column {error.colno}: {error.msg}"
    except UnicodeEncodeError:
        fault = "an escaped surrogate without its other half is not a character"
    except ValueError as error:
        fault = str(error)
    raise BadInput(f"{url}, line {number}, {fault}")


def _refuse_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object with these names and values. Raises `ValueError` if a name comes twice."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("one object has the same name twice")
    return row


class Digits(str):
    """The digits of a number of which a double would lose some."""

    __slots__ = ()


def _parse_number(digits: str) -> float | Digits:
    """Return a number with a fraction or an exponent as a double, or its digits if a double would lose some.

    Raises `ValueError` for a number that is too large for a double.
    """
    number = float(digits)
    if isinf(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    is_short = len(digits) < 17 and "e" not in digits.lower()
    return number if is_short or is_exact_double(digits) else Digits(digits)


#: Numbers with a fraction that may have more digits than a double holds.
_LONG_FRACTION = re.compile(rb"-?(?=[0-9.]{17})[0-9]++\.[0-9]++(?:[eE][-+]?[0-9]++)?|[0-9.]++[eE]-[0-9]{3,}+")


def has_inexact_fraction(data: bytes) -> bool:
    """True if the bytes contain a fraction of which a double would lose digits. Those in texts count."""
    return any(not is_exact_double(digits.decode()) for digits in set(_LONG_FRACTION.findall(data)))


def value_to_text(value: Any) -> str | None:
    """Return a value as JSON text. Return a string (or `Digits`) and None unchanged."""
    return value if value is None or isinstance(value, str) else _to_json(value)


def _to_json(value: Any) -> str:
    """Return a value as JSON text, with `Digits` as a number."""
    match value:
        case Digits():
            return str(value)
        case dict():
            return (
                "{" + ",".join(f"{_to_json(name)}:{_to_json(entry)}" for name, entry in value.items()) + "}"
            )
        case list():
            return "[" + ",".join(map(_to_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
