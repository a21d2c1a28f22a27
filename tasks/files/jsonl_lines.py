"""Cut JSONL into blocks of whole lines that can be parsed in bounded memory and on a bounded stack."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isinf
from typing import Any

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.columns import is_exact_double
from millpond.tasks.files.folders import printable

BLOCK_BYTES = 1024 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
#: Deeper input is refused: Parquet readers take 100 levels, of which an array needs three, and the parser of
#: pyarrow recurses: some ten thousand levels overflow the stack and end the process.
MAX_DEPTH = 32
#: Objects times names: the maximum of values that are held at once; an absent value takes room as well.
MAX_CELLS = 4_000_000

# No text begins after a backslash: without that, or `*+`, a hostile line takes quadratic time.
_NAME = re.compile(rb'(?<!\\)"([^"\\]*+(?:\\.[^"\\]*+)*+)"\s*+:')
_TEXT = re.compile(rb'(?<!\\)"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


@dataclass(frozen=True)
class Block:
    """Whole lines as they are in the file, the number of the first, and how many are not blank."""

    url: str
    first_line: int
    data: bytes
    rows: int = 0

    def numbered_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line that is not blank with its number."""
        for number, line in enumerate(self.data.split(b"\n"), self.first_line):
            if line := line.strip():
                yield number, line

    def value_names(self) -> set[bytes]:
        """Return the names of all values, at any depth. A text that looks like a name counts as one."""
        return set(_NAME.findall(self.data))

    def row_line(self, index: int) -> int:
        """Return the number of the line that holds the row of this index."""
        return next(number for at, (number, _) in enumerate(self.numbered_lines()) if at == index)


def read_blocks(text: io.RawIOBase, url: str) -> Iterator[Block]:
    """Yield the file in blocks. Raises `TooLarge` with the line that fits none."""
    line, tail = 1, b""
    while chunk := text.read(BLOCK_BYTES):
        end = chunk.rfind(b"\n") + 1
        if len(tail) + (chunk.find(b"\n") if end else len(chunk)) > MAX_LINE_BYTES:
            raise TooLarge(f"{url}, line {line}, is longer than {MAX_LINE_BYTES} bytes: is this JSONL?")
        if end:
            yield Block(url, line, tail + chunk[:end])
            line, tail = line + chunk.count(b"\n"), chunk[end:]
        else:
            tail += chunk
    if tail:
        yield Block(url, line, tail)


def split_block(block: Block, width: int) -> Iterator[Block]:
    """Yield a block in pieces whose objects, with up to `width` names each, stay below `MAX_CELLS`.

    Every line is an object from its first to its last character, so no parser can nest across lines: the
    depth that is checked here is the depth that the parser meets. Raises `BadInput` for a line that is no
    object. Raises `TooLarge` for a line that nests too deep or alone has more than `MAX_CELLS` values.
    """
    lines: list[bytes] = []
    first, cells, rows = block.first_line, 0, 0
    for number, line in enumerate(block.data.split(b"\n"), block.first_line):
        objects = _check_line(line.strip(), block.url, number) * width
        if objects > MAX_CELLS:
            raise TooLarge(f"{block.url}, line {number}: over {MAX_CELLS} values, counting absent ones")
        if cells + objects > MAX_CELLS:
            yield Block(block.url, first, b"\n".join(lines), rows)
            lines, first, cells, rows = [], number, 0, 0
        lines.append(line)
        cells, rows = cells + objects, rows + bool(objects)
    if rows:
        yield Block(block.url, first, b"\n".join(lines), rows)


def parse_block(block: Block) -> list[dict[str, Any]]:
    """Parse a block with Python's JSON parser, for the blocks that pyarrow cannot parse.

    Return one dict a line. Raises `BadInput` with the line and column.
    """
    return [_parse_line(line, block.url, number) for number, line in block.numbered_lines()]


def _check_line(line: bytes, url: str, number: int) -> int:
    """Return the number of objects on a line, nested ones included: 0 for an empty line.

    Raises `BadInput` if the line is no object, and `TooLarge` if it nests deeper than `MAX_DEPTH`.
    """
    if not line:
        return 0
    if line[:1] != b"{" or line[-1:] != b"}":
        raise _not_an_object(line, url, number)
    objects = line.count(b"{")
    if objects + line.count(b"[") > MAX_DEPTH and _nesting_depth(line) > MAX_DEPTH:
        raise TooLarge(f"{url}, line {number}, nests deeper than {MAX_DEPTH} levels")
    return objects


def _not_an_object(line: bytes, url: str, number: int) -> BadInput:
    """Return the error for a line that is not one JSON object."""
    if line[:1] == b"[":
        return BadInput(
            f"{url}, line {number}, begins an array: JSONL has one object a line, without brackets"
        )
    cut = "ends before its object does" if line[:1] == b"{" else "is no JSON object"
    return BadInput(f"{url}, line {number}, {cut}: {printable(line[:40].decode(errors='replace'))}")


def _nesting_depth(line: bytes) -> int:
    """Return the deepest nesting of brackets outside of texts."""
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
        fault = "an escaped surrogate without its other half is no character"
    except ValueError as error:
        fault = str(error)
    raise BadInput(f"{url}, line {number}, {fault}")


def _refuse_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of its pairs. Raises `ValueError` if a name occurs twice."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("one object has the same name twice")
    return row


class Digits(str):
    """A number as it is written, because a double would lose some of its digits."""

    __slots__ = ()


def _parse_number(digits: str) -> float | Digits:
    """Return a number, or its digits if a double would lose some of them."""
    number = float(digits)
    if isinf(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return (
        number
        if (len(digits) < 17 and "e" not in digits.lower()) or is_exact_double(digits)
        else Digits(digits)
    )


#: Numbers with a fraction that may have more digits than a double holds.
_LONG_FRACTION = re.compile(rb"-?(?=[0-9.]{17})[0-9]++\.[0-9]++(?:[eE][-+]?[0-9]++)?|[0-9.]++[eE]-[0-9]{3,}+")


def has_inexact_fraction(data: bytes) -> bool:
    """True if the bytes contain a number of which a double would lose digits. Texts count as well."""
    return any(not is_exact_double(digits.decode()) for digits in set(_LONG_FRACTION.findall(data)))


def value_to_text(value: Any) -> str | None:
    """Return a string unchanged, None as None, and any other value as JSON text."""
    return value if value is None or (isinstance(value, str)) else _to_json(value)


def _to_json(value: Any) -> str:
    """Return a value as JSON text. A number kept as `Digits` has the digits that were written."""
    match value:
        case Digits():
            return str(value)
        case dict():
            return "{" + ",".join(f"{_to_json(name)}:{_to_json(each)}" for name, each in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_to_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
