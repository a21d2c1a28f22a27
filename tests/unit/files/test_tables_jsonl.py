"""JSONL becomes Parquet, with one type for each name, without rounding, and with limits of memory."""

from collections.abc import Callable
from typing import Any

import pytest

from millpond.tasks.files import csv_rows, jsonl_lines
from millpond.tasks.files.contract import TableResult

Convert = Callable[..., tuple[TableResult, Any]]
Refused = Callable[..., str]
JSONL = {"name": "in.jsonl"}
DECLARED: dict[str, Any] = {"types": {"at": "timestamp"}}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files in blocks of 16 KiB, so that a short file has many."""
    monkeypatch.setattr(jsonl_lines, "BLOCK_BYTES", 16 * 1024)
    monkeypatch.setattr(csv_rows, "BLOCK_BYTES", (16 * 1024, 32 * 1024))


def types(table: Any) -> dict[str, str]:
    """Return a table's types by column, as Arrow writes them."""
    return {field.name: str(field.type) for field in table.schema}


def test_objects_become_rows(to_table: Convert) -> None:
    """Nested values keep their shape, texts stay texts, and a name that an object lacks is null."""
    result, table = to_table(
        b'{"n":1,"t":"2024-01-01","o":{"a":[1,2]},"e":{}}\n\n{"o":{"b":"x"},"n":2.5,"none":null}\n', **JSONL
    )
    assert (result.rows, result.columns) == (2, 5)
    assert types(table) == {
        "n": "double",
        "t": "string",
        "o": "struct<a: list<element: int64>, b: string>",
        "e": "string",
        "none": "string",
    }
    assert table["o"].to_pylist() == [{"a": [1, 2], "b": None}, {"a": None, "b": "x"}]
    assert table["e"].to_pylist() == ["{}", None]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (b'{"a":"x"}', ["1", "x"]),
        (b'{"a":[true,null]}', ["1", "[true,null]"]),
        (b'{"a":12345678901234567890}', ["1", "12345678901234567890"]),
        (b'{"a":2.5}', [1.0, 2.5]),
        (b'{"a":null}', [1, None]),
        (b"{}", [1, None]),
        (b'{"b":1}', [1, None]),
    ],
)
@pytest.mark.usefixtures("small_blocks")
def test_the_last_row_counts_as_much_as_the_first(
    to_table: Convert, last: bytes, expected: list[Any]
) -> None:
    """A late value of another kind makes the column wider, or text that holds JSON; nothing is lost."""
    _, table = to_table(b'{"a":1}\n' * 10_000 + last, **JSONL)
    assert [table["a"][0].as_py(), table["a"][-1].as_py()] == expected


@pytest.mark.usefixtures("small_blocks")
def test_integers_that_a_double_would_round_stay_exact(to_table: Convert) -> None:
    """A fraction that follows large integers makes the column text."""
    _, table = to_table(b'{"a":9007199254740993}\n' * 10_000 + b'{"a":0.5}\n', **JSONL)
    assert [table["a"][0].as_py(), table["a"][-1].as_py()] == ["9007199254740993", "0.5"]


def test_declared_types_are_followed(to_table: Convert, refused_table: Refused) -> None:
    """`types` overrules JSON's own types; a value that does not fit names its line."""
    content = b'{"a":"2024-01-01","b":"7","c":7}\n\n{"b":8,"c":{"x":1}}\n'
    _, table = to_table(content, types={"a": "date", "b": "int64", "c": "string"}, **JSONL)
    assert types(table) == {"a": "date32[day]", "b": "int64", "c": "string"}
    assert table["c"].to_pylist() == ["7", '{"x":1}']
    assert "line 3, 'b': 'x' is no int64" in refused_table(
        b'{"b":"1"}\n\n{"b":"x"}\n', types={"b": "int64"}, **JSONL
    )


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (("2026-01-01T00:00:00Z", "2026-01-01T02:00:00+02:00", ""), "timestamp[us, tz=UTC]"),
        (("2026-01-01T00:00:00", "2026-01-01", ""), "timestamp[us]"),
        (("", ""), "timestamp[us]"),
    ],
)
def test_declared_timestamps_are_those_of_a_csv(
    to_table: Convert, values: tuple[str, ...], type_: str
) -> None:
    """A declared timestamp may have a time zone, in JSONL as in CSV, and both give the same column."""
    rows = "".join(f'{{"at":"{value}","n":1}}\n' for value in values) + "{}\n"
    _, table = to_table(rows.encode(), types={"at": "timestamp"}, **JSONL)
    lines = "at,n\n" + "".join(f"{value},1\n" for value in values) + ",\n"
    _, csv_table = to_table(lines.encode(), types={"at": "timestamp"})
    assert str(table["at"].type) == type_
    assert table["at"].equals(csv_table["at"])


@pytest.mark.parametrize("empty", ["", "NA"])
@pytest.mark.usefixtures("small_blocks")
def test_a_block_without_values_decides_no_time_zone(to_table: Convert, empty: str) -> None:
    """The timestamps in later blocks do, in JSONL as in CSV."""
    values = [empty] * 2_000 + ["2026-01-01T00:00:00Z"] * 2_000 + [empty] * 2_000
    _, table = to_table("".join(f'{{"at":"{value}"}}\n' for value in values).encode(), **DECLARED, **JSONL)
    _, csv_table = to_table(("at,n\n" + "".join(f'"{value}",1\n' for value in values)).encode(), **DECLARED)
    assert str(table["at"].type) == "timestamp[us, tz=UTC]"
    assert table["at"].null_count == 4_000
    assert table["at"].equals(csv_table["at"])


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "has no time zone, and other values have one"),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00Z", "has a time zone, and other values have none"),
        ("2026-01-01", "2026-01-01T00:00:00+02:00", "has a time zone, and other values have none"),
        ("2026-01-01T00:00:00Z", "tomorrow", "is no timestamp"),
    ],
)
@pytest.mark.parametrize("format", ["csv", "jsonl"])
@pytest.mark.usefixtures("small_blocks")
def test_a_declared_timestamp_that_does_not_fit_names_its_line(
    refused_table: Refused, format: str, first: str, last: str, reason: str
) -> None:
    """Timestamps with and without a time zone do not mix; the first that differs is named, in any block."""
    values = [first] * 2_000 + [last]
    if format == "jsonl":
        content = "".join(f'{{"at":"{value}"}}\n' for value in values)
        message = refused_table(content.encode(), **DECLARED, **JSONL)
        assert f"line 2001, 'at': {last!r} {reason}" in message
    else:
        message = refused_table("\n".join(["at", *values]).encode(), **DECLARED)
        assert f"line 2002, column 'at': {last!r} {reason}" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "names no value"),
        (b"{}\n{}\n", "names no value"),
        (b'{"a":1}\n\n{"a":\n', "line 3, ends before its object does"),
        (b'{"a": 1},\n{"a": 2}\n', "line 1, has a comma after its object: JSONL has none"),
        (b'{"a":1}\n{"a":2} , \n', "line 2, has a comma after its object"),
        (b'{"a":1} # one\n', "line 1, has text after its object: JSONL has one object a line"),
        (b'{"a":"}x,\n', "line 1, ends before its object does"),
        (b'{"a":1}\n{"a":' + b"[" * 100_000 + b"1,\n", "line 2, ends before its object does"),
        (b'{"a":1,\n"b":2}\n', "line 1, ends before its object does"),
        (b'{"a":[{"b":1},\n{"b":2}]}\n', "line 1, ends before its object does"),
        (b'{"a":1}\n{"a":}\n', "line 2, column 6: Expecting value"),
        (b'{"a":1}\n{"a":1,"a":2}\n', "line 2, one object has the same name twice"),
        (b'{"a":1}\n{"a":1}{"a":2}\n', "line 2, column 8: Extra data"),
        (b'[\n{"a":1}\n]\n', "line 1, begins an array"),
        (b"5\n", "line 1, is not a JSON object"),
        (b"a,b\n1,2\n", "line 1, is not a JSON object: a,b"),
        (b'{"a":1}\n{"a":"\xff"}\n', "line 2: byte 0xff is not utf-8"),
        (b'{"a":"\\ud800"}\n', "line 1, an escaped surrogate without its other half"),
        (b'{"a":1e999}\n', "line 1, 1e999 is too large"),
        (b'{"a":' + b"1" * 5_000 + b"}\n", "line 1, Exceeds the limit"),
        (b'{"a":1}\n' * 200_000 + b'{"a":tru}\n', "line 200001, column 6: Expecting value"),
    ],
)
def test_bad_input_names_its_line(refused_table: Refused, content: bytes, message: str) -> None:
    """The error for a bad file is one line with the place."""
    assert message in refused_table(content, **JSONL)


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":' + b'["]",' * 100_000 + b"1" + b"]" * 100_000 + b"}",
    ],
)
def test_deep_nesting_is_refused(refused_table: Refused, line: bytes) -> None:
    """Nesting that would overflow the parser's stack, and end the worker, is an error with a line."""
    assert "line 2, nests deeper than 32 levels" in refused_table(b'{"a":1}\n' + line + b"\n", **JSONL)


@pytest.mark.parametrize(
    "opening", [b'{"a":' * 31 + b"1" + b"}" * 31, b'{"a":' + b"[" * 31 + b"]" * 31 + b"}"]
)
def test_the_deepest_that_is_accepted_can_be_read_back(to_table: Convert, opening: bytes) -> None:
    """The deepest nesting that is accepted can be read back from Parquet."""
    assert to_table(opening, **JSONL)[0].rows == 1


def test_data_under_names_of_its_own_stays_small(to_table: Convert, refused_table: Refused) -> None:
    """A different name in each row is text within an object, and refused where it would be a column."""
    _, table = to_table(b"".join(b'{"m":{"k%d":1}}\n' % at for at in range(20_000)), **JSONL)
    assert table["m"][19_999].as_py() == '{"k19999":1}'
    wide = b"".join(b'{"k%d":1}\n' % at for at in range(20_000))
    assert "more than 4096 names" in refused_table(wide, **JSONL)
    within = b'{"m":[' + b",".join(b'{"k%d":1}' % at for at in range(20_000)) + b"]}\n"
    assert "line 1: over 4000000 values" in refused_table(within, **JSONL)


def test_a_small_file_cannot_make_a_table_of_endless_nulls(refused_table: Refused) -> None:
    """Many names in one row and many rows without any are refused: each absent value takes room too."""
    names = b"{" + b",".join(b'"k%d":1' % at for at in range(4_000)) + b"}\n"
    assert "nearly all absent" in refused_table(names + b"{}\n" * 300_000, **JSONL)


def test_a_hostile_text_takes_no_quadratic_time(refused_table: Refused) -> None:
    """A megabyte of escaped quotes in a text without an end is refused at once."""
    assert "line 1, " in refused_table(b'{"' + b'\\"' * 500_000 + b"}\n", **JSONL)
