"""No value of a table changes: a number that would be rounded becomes text, and an open quote is refused."""

import csv
import io
import json
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.tasks.files.contract import TableResult, ToParquet
from millpond.tasks.files.csv_lines import find_line_of_offset
from millpond.tasks.files.csv_quotes import QuoteCheck, QuoteFault, find_first_fault

Convert = Callable[..., tuple[TableResult, Any]]
Refused = Callable[..., str]
WIDE = 2**53 + 1
MEGABYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'a,b\n1,"x\n2,y\n', "line 2, opens a quote that never closes"),
        (b'a,b\n1,"x\n' + b"2,y\n" * 500_000, "line 2, opens a quote that never closes"),
        (b"a,b\n" + b"2,y\n" * 500_000 + b'1,"x\n' + b"2,y\n" * 9, "line 500002, opens a quote that never"),
        (b'a,b\n1,"x\n2,y\n3,"z"\n', "line 2, opens a quote that closes before 'z\"'"),
        (b'a,b\n1,"x" y\n', "line 2, opens a quote that closes before ' y'"),
        (b'a,b\n1,"x\\" y"\n', "line 2, opens a quote that closes before ' y\"'"),
        (b'a,b\n"1" ,x\n', "line 2, opens a quote that closes before ' ,x'"),
        (b'a,"b\n1,x\n', "line 1, opens a quote that never closes"),
        (b'a,"b"c\n1,x\n', "line 1, opens a quote that closes before 'c'"),
        (b'"a\n1\n', "line 1, opens a quote that never closes"),
        (b'a,b\r\n1,x\r\n2,"y\r\n3,z\r\n', "line 3, opens a quote that never closes"),
        (b'a,b\r1,x\r2,"y\r3,z\r', "line 3, opens a quote that never closes"),
        (b'a,b\n"x\ny",1\n2,"z\n', "line 4, opens a quote that never closes"),
        (b'a,b\n1,2,3\n4,"x\n', "line 2, has 3 columns where the header has 2"),
        (b'a,b\n1,"\n', "line 2, opens a quote that never closes"),
        (b'a,b\n1,""x\n', "line 2, opens a quote that closes before 'x'"),
    ],
)
def test_a_quote_that_swallows_rows_is_refused_with_its_line(
    refused_table: Refused, content: bytes, message: str
) -> None:
    """One stray quote swallowed 989 of 1,000 rows, and "succeeded"."""
    assert message in refused_table(content)


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b'a,b\n1,5" pipe\n2,x"y"z\n', ['5" pipe', 'x"y"z']),
        (b'a,b\n1,"say ""hi"""\n2,""\n', ['say "hi"', ""]),
        (b'a,b\n1,"x,\ny"\n2,""""\n', ["x,\ny", '"']),
        (b'a,b\n1, "x"\n2,y', [' "x"', "y"]),
        (b'a,b\n1,""""""\n2,"\r\n"', ['""', "\r\n"]),
    ],
)
def test_quotes_that_are_in_order_are_read(to_table: Convert, content: bytes, rows: list[str]) -> None:
    """A doubled quote is one, and a quote inside a field that opens none is a character."""
    assert to_table(content)[1]["b"].to_pylist() == rows


def _python_refuses(text: str, delimiter: str) -> bool:
    try:
        list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return True
    return False


@given(st.text('",;\n\rab', max_size=30), st.lists(st.integers(1, 7), min_size=1), st.sampled_from(",;"))
def test_quotes_are_judged_as_pythons_strict_parser_does(text: str, sizes: list[int], delimiter: str) -> None:
    """The check finds a fault if Python's strict parser does, however the text is cut into chunks."""
    content = (text + "\n").encode()
    found = _fault_in_chunks(content, sizes, delimiter)
    assert (found is not None) == _python_refuses(text + "\n", delimiter)
    whole = find_first_fault(io.BytesIO(content), delimiter)  # type: ignore[arg-type]
    assert (whole and whole.offset) == (found and found.offset)
    if found is not None:
        assert content[found.offset : found.offset + 1] == b'"'
        before = content[: found.offset].decode()
        lines = before.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        assert find_line_of_offset(io.BytesIO(content), found.offset) == lines  # type: ignore[arg-type]


def _fault_in_chunks(content: bytes, sizes: list[int], delimiter: str) -> QuoteFault | None:
    check, at, turn = QuoteCheck(delimiter), 0, 0
    try:
        while at < len(content):
            size = sizes[turn % len(sizes)]
            check.check_chunk(content[at : at + size])
            at, turn = at + size, turn + 1
        check.check_chunk(b"")
    except QuoteFault as fault:
        return fault
    return None


class _OpenQuote(io.RawIOBase):
    """A text of 40 MiB that opens a quote in its first line."""

    def __init__(self) -> None:
        self._chunks = iter([b'a,"b\n', *[b"1,2\n" * (MEGABYTE // 4)] * 40])

    def read(self, _size: int = -1, /) -> bytes:
        return next(self._chunks, b"")


def test_an_open_quote_is_found_in_constant_memory() -> None:
    """The bytes after it are not kept: a file of 10 GiB took as much memory, and quadratic time."""
    tracemalloc.start()
    fault = find_first_fault(_OpenQuote(), ",")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (fault and (fault.offset, fault.closes)) == (2, False)
    assert peak < 8 * MEGABYTE


@pytest.mark.parametrize(
    ("content", "name", "options"),
    [
        (b"a\tb\n1\tx,y\n", "in.tsv", {}),
        (b"a\tb\n1\tx,y\n", "IN.TSV", {}),
        (b"a\tb\n1\tx,y\n", "in.tab", {}),
        (b"a\tb\n1\tx,y\n", "in.csv", {"delimiter": "\t"}),
        (b"a\tb\n1\tx,y\n", "in.txt", {"delimiter": r"\t", "format": "csv"}),
        (b'a;b\n1;"x,y"\n', "in.csv", {"delimiter": ";"}),
        (b"a|b\n1|x,y\n", "in.csv", {"delimiter": "|"}),
        (b"sep=;\na;b\n1;x,y\n", "in.csv", {}),
        (b"\xef\xbb\xbfsep=;\r\na;b\r\n1;x,y\r\n", "in.csv", {}),
        (b"sep=\t\na\tb\n1\tx,y\n", "in.csv", {}),
        (b"a\x1fb\n1\x1fx,y\n", "in.csv", {"delimiter": "\x1f"}),
        (b'a,b\n1,"x,y"\n', "in.tsv", {"delimiter": ","}),
    ],
)
def test_every_delimiter_is_read(
    to_table: Convert, content: bytes, name: str, options: dict[str, str]
) -> None:
    """The delimiter is given by the name's ending, the contract, or a line `sep=` before the header."""
    assert to_table(content, name=name, **options)[1].to_pylist() == [{"a": 1, "b": "x,y"}]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"a;b\n1;2\n", "in.csv", "1 columns by ',' and 2 by ';': name its delimiter"),
        (b"a\tb\n1\t2\n", "in.csv", "(--delimiter '\\t')"),
        (b"a|b|c\n1|2|3\n", "in.csv", "1 columns by ',' and 3 by '|'"),
        (b"a,b\n1,2\n", "in.tsv", "1 columns by '\\t' and 2 by ','"),
        (b"name;price,EUR\nx;1,5\n", "in.csv", "2 columns by ',' and 2 by ';'"),
        (b"a;b\n", "in.csv", "1 columns by ',' and 2 by ';'"),
    ],
)
def test_another_delimiter_is_asked_for(
    refused_table: Refused, content: bytes, name: str, message: str
) -> None:
    """Columns separated by something else became one column, and "succeeded"."""
    assert message in refused_table(content, name=name)


@pytest.mark.parametrize(
    "content", [b"a;b\n1\n", b'"a;b"\n1\n', b"a,b|c\n1,2\n", b"a,b\n1;2,3;4\n", b"a b\n1 2\n", b"a\n1|2\n"]
)
def test_a_character_in_a_name_is_no_delimiter(to_table: Convert, content: bytes) -> None:
    """Another delimiter is suspected only if it makes as many columns in the header as in the first row."""
    assert to_table(content)[0].rows == 1


@pytest.mark.parametrize("delimiter", ['"', "\n", "\r", "\0", "é", ";;", ""])
def test_a_delimiter_that_cannot_be_one_is_refused_before_it_is_sent(delimiter: str) -> None:
    """pyarrow would fail on it, or read every row wrong."""
    with pytest.raises(ValueError, match="delimiter"):
        ToParquet(source="a.csv", target="b", delimiter=delimiter)


def _values(value: Any) -> Any:
    """Return a value of a table with exact numbers, whether the table has it as a type or as JSON text."""
    if isinstance(value, str):
        try:
            return _values(json.loads(value, parse_float=Fraction, parse_int=Fraction))
        except ValueError:
            return value
    if isinstance(value, dict):
        return {name: _values(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_values(each) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        # A double stands for the number that it prints as.
        return Fraction(repr(value))
    return value


JSON_COLUMNS: dict[str, list[str]] = {
    "beside a fraction": ["9007199254740993", "1.5"],
    "behind a fraction": ["1.5", "9007199254740993"],
    "negative": ["-9007199254740993", "1.5"],
    "two alike": ["9007199254740993", "9007199254740995", "1.5"],
    "beside null": ["9007199254740993", "null", "0.5"],
    "null first": ["null", "9007199254740993", "null", "0.5"],
    "beside a text": ["9007199254740993", '"x"', "1.5"],
    "beside a truth": ["9007199254740993", "true"],
    "in a list": ["[9007199254740993, 1.5]"],
    "in lists": ["[9007199254740993]", "[1.5]", "[]"],
    "in an object": ['{"id": 9007199254740993}', '{"id": 1.5}'],
    "in objects of other names": ['{"id": 9007199254740993}', '{"x": 1}', '{"id": 0.5, "x": 2}'],
    "in a list of objects": ['[{"id": 9007199254740993}, {"id": 1}]', '[{"id": 1.5}]'],
    "in an object in a list in an object": ['{"a": [{"b": 9007199254740993}]}', '{"a": [{"b": 0.5}]}'],
    "beyond 64 bits": ["18446744073709551617", "1"],
    "beyond 64 bits, beside a fraction": ["1.5", "123456789012345678901234567890"],
    "the smallest of 64 bits": ["-9223372036854775808", "1"],
    "below 64 bits": ["-9223372036854775809", "1"],
    "the largest of 64 bits": ["9223372036854775807", "0.5"],
    "with an exponent": ["9007199254740993", "1e3"],
    "a fraction of many digits": ["0.12345678901234567890", "1.5"],
    "fractions of many digits": ["0.12345678901234567890", "0.98765432109876543210"],
    "a fraction of many digits in an object": ['{"a": 12345678901234567.25}', '{"a": 1.5}'],
    "a fraction of many digits beside a text": ["0.12345678901234567890", '"x"'],
    "a large fraction": ["9007199254740993.0", "1.5"],
    "a tiny number": ["1e-400", "1.5"],
    "as written by programs": ["0.1234567890123456", "3.141592653589793", "1e22"],
}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("case", JSON_COLUMNS)
def test_numbers_of_jsonl_are_exact(to_table: Convert, case: str, apart: bool) -> None:
    """Identifiers beside a fraction were rounded, wherever they stood; in one block or megabytes apart."""
    filler = [" " * 4_000] * 600 if apart else []
    rows = [f'{{"v": {value}, "n": 1}}' for value in JSON_COLUMNS[case]]
    content = "\n".join(line for row in rows for line in (row, *filler))
    _, table = to_table(content.encode(), name="in.jsonl")
    wanted = [_values(value) for value in JSON_COLUMNS[case]]
    assert [_values(value) for value in table["v"].to_pylist()] == wanted
    assert table["n"].to_pylist() == [1] * len(rows)


_numbers = st.one_of(
    st.integers(-(2**66), 2**66),
    st.integers(WIDE - 3, WIDE + 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-10, max_value=10, places=20).map(
        lambda number: format(number, "f")
    ),
)


@settings(deadline=None)
@given(
    st.lists(_numbers, min_size=1, max_size=6),
    st.sampled_from(["{}", "[{}]", '{{"a": {}}}', '[{{"a": {}}}]']),
)
def test_any_numbers_together_are_exact(numbers: list[Any], shape: str) -> None:
    """No number loses a digit, in CSV and in JSONL, plain or nested."""
    import tempfile
    from pathlib import Path

    import pyarrow.parquet as pq

    from millpond.tasks.context import Context
    from millpond.tasks.files.storage import Storage
    from millpond.tasks.files.tables import to_parquet

    written = [str(number) for number in numbers]
    contents = {
        "in.jsonl": "\n".join(f'{{"v": {shape.format(number)}}}' for number in written),
        "in.csv": "v\n" + "\n".join(written),
    }
    for name, content in contents.items():
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, name).write_text(content)
            to_parquet(ToParquet(source=name, target="out"), Storage(roots=(folder,)), Context())
            found = pq.read_table(Path(folder, "out"))["v"].to_pylist()
        wanted = [shape.format(number) if name == "in.jsonl" else number for number in written]
        assert [_values(value) for value in found] == [_values(value) for value in wanted]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.1234567890123456", "double"),
        ("3.141592653589793", "double"),
        ("1e22", "double"),
        ("0.12345678901234567", "string"),
        ("0.1234567890123456789", "string"),
        ("1e-400", "string"),
        ("1.5e300", "double"),
        ("9007199254740993.5", "string"),
        ("100000000000000.25", "double"),
    ],
)
def test_a_fraction_of_csv_is_a_number_where_no_digit_is_lost(
    to_table: Convert, value: str, expected: str
) -> None:
    """A double as a program prints it is one; more digits stay text."""
    _, table = to_table(f"a\n0.5\n{value}\n".encode())
    assert str(table.schema.field("a").type) == expected
    assert Fraction(str(table["a"][1].as_py())) == Fraction(value)
