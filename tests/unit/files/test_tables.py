"""CSV becomes Parquet, with types that fit the whole file. An error has the line at fault."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
from millpond.tasks.files import csv_rows, tables, utf8_reader
from millpond.tasks.files.contract import TableResult, ToParquet
from millpond.tasks.files.storage import Storage
from millpond.tasks.files.tables import to_parquet
from millpond.tasks.files.utf8_reader import Utf8Reader

Convert = Callable[..., tuple[TableResult, Any]]
Refused = Callable[..., str]


def types(table: Any) -> dict[str, str]:
    """Return a table's types by column, as Arrow writes them."""
    return {field.name: str(field.type) for field in table.schema}


def test_a_type_is_taken_where_it_loses_nothing(to_table: Convert) -> None:
    """Numbers, dates and booleans get such types. Postcodes, long numbers and mixed columns remain text."""
    result, table = to_table(
        b"n,x,day,at,zoned,flag,postcode,long,mixed\n"
        b"1,1.5,2024-02-29,2024-01-01 10:00:00,2024-01-01T10:00:00Z,true,01234,12345678901234567890,1\n"
        b"-2,3,2024-01-01,2024-01-01,2024-01-01T10:00:00+02:00,FALSE,9,1,x\n"
    )
    assert (result.rows, result.columns) == (2, 9)
    assert types(table) == {
        "n": "int64",
        "x": "double",
        "day": "date32[day]",
        "at": "timestamp[us]",
        "zoned": "timestamp[us, tz=UTC]",
        "flag": "bool",
        "postcode": "string",
        "long": "string",
        "mixed": "string",
    }
    assert table["postcode"].to_pylist() == ["01234", "9"]
    assert table["long"].to_pylist() == ["12345678901234567890", "1"]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (b"x", "string"),
        (b"1.5", "double"),
        (b"12345678901234567890", "string"),
        (b"", "int64"),
        (b"NA", "int64"),
    ],
)
def test_the_last_row_counts_as_much_as_the_first(to_table: Convert, last: bytes, expected: str) -> None:
    """A value megabytes behind the first block changes the column's type instead of failing the task."""
    result, table = to_table(b"a,b\n" + b"1,some text\n" * 200_000 + last + b",end\n")
    assert result.rows == 200_001
    assert types(table)["a"] == expected
    assert table["a"][0].as_py() == ("1" if expected == "string" else 1)
    assert table["b"][-1].as_py() == "end"


def test_integers_that_a_double_would_round_stay_exact(to_table: Convert) -> None:
    """A fraction far behind a large integer, or one of many digits, makes the column text, not rounded."""
    _, table = to_table(b"a,b\n9007199254740993,0.1\n" + b"1,2\n" * 400_000 + b"0.5,0." + b"1" * 30 + b"\n")
    assert types(table) == {"a": "string", "b": "string"}
    assert table["a"][0].as_py() == "9007199254740993"


def test_no_value_and_an_empty_text_differ(to_table: Convert) -> None:
    """An empty field is null, a quoted empty one is an empty text; NA is null in a column of numbers only."""
    _, table = to_table(b'text,number,word\na,1,NA\n,,x\n"","",y\n"b",NA,z\n')
    assert table["text"].to_pylist() == ["a", None, "", "b"]
    assert table["number"].to_pylist() == [1, None, None, None]
    assert table["word"].to_pylist() == ["NA", "x", "y", "z"]


def test_quotes_may_hold_delimiters_and_line_breaks(to_table: Convert) -> None:
    """Quoted fields of several lines arrive whole, across the blocks that are read as well."""
    row = b'"one, two\nthree ""four""",' + b"x" * 1_000 + b"\n"
    result, table = to_table(b'"a\nb",c\n' + row * 3_000)
    assert result.rows == 3_000
    assert table.column_names == ["a\nb", "c"]
    assert set(table["a\nb"].to_pylist()) == {'one, two\nthree "four"'}


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (b"\xef\xbb\xbfa,b\r\n1,\xc3\xa9\r\n", {}),
        (b"\n\na,b\n1,\xc3\xa9", {}),
        (b"a,b\n1,\xe9\n", {"encoding": "cp1252"}),
        ("a,b\n1,é\n".encode("utf-16"), {"encoding": "utf-16"}),
        (b"a;b\n1;\xc3\xa9\n", {"delimiter": ";"}),
        (b"a\tb\r1\t\xc3\xa9\r", {"delimiter": "\t"}),
    ],
)
def test_marks_encodings_and_line_ends(to_table: Convert, content: bytes, options: dict[str, str]) -> None:
    """Byte order marks, other encodings, other delimiters and every line end give the same table."""
    _, table = to_table(content, **options)
    assert table.to_pylist() == [{"a": 1, "b": "é"}]


def test_a_header_alone_is_an_empty_table(to_table: Convert) -> None:
    """A header without rows is no error; a column without a name is named by its place."""
    result, table = to_table(b"a,,c")
    assert (result.rows, types(table)) == (0, {"a": "string", "column_2": "string", "c": "string"})


def test_declared_types_are_followed(to_table: Convert) -> None:
    """A type in `types` is used instead of the inferred one."""
    _, table = to_table(b"a,b,c\n007,1,2024-01-01\n", types={"a": "int64", "b": "string", "c": "timestamp"})
    assert types(table) == {"a": "int64", "b": "string", "c": "timestamp[us]"}
    assert table["a"].to_pylist() == [7]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "is empty"),
        (b"\n\n", {}, "holds no header row"),
        (b"a,b\n1,2\n\n3\n", {}, "line 4, has 1 columns where the header has 2"),
        (b'a,b\n1,"x\ny"\n1,2,3\n', {}, "line 4, has 3 columns where the header has 2"),
        (b"a,b\n1,2\n3,\xff\n", {}, "line 3: byte 0xff is not utf-8: give the encoding"),
        (b"a,b\n1,2\n3,\x81\n", {"encoding": "cp1252"}, "line 3: byte 0x81 is not cp1252"),
        ("a,b\n1,é\n".encode("utf-16"), {}, "looks like UTF-16, give encoding='utf-16'"),
        (b"a,b\n1,2\n", {"encoding": "klingon"}, "no text encoding is called 'klingon'"),
        (b"a,b\n1,2\n", {"encoding": "base64"}, "no text encoding is called 'base64'"),
        (b"a,b\n1,2\n\0,3\n", {}, "line 3, holds a zero byte"),
        (b"PK\x03\x04 and so on", {}, "is no text: it looks like zip"),
        (b"\x1f\x8b and so on", {}, "is no text: it looks like gzip"),
        (b"a,b,a\n1,2,3\n", {}, "line 1, names columns 1 and 3 both 'a'"),
        (b"a,b\n1,2\n\nx,3\n", {"types": {"a": "int64"}}, "line 4, column 'a': 'x' is no int64"),
        (b"a,b\n1,2\n", {"types": {"c": "int64"}}, "line 1, names no column 'c'"),
        (b"a,b\n" + b"1,2\n" * 300_000 + b"1\n", {}, "line 300002, has 1 columns where the header has 2"),
        (b"a,b\n" + b"1,2\n" * 300_000 + b"1,\xff\n", {}, "line 300002: byte 0xff is not utf-8"),
    ],
)
def test_bad_input_names_its_line(
    refused_table: Refused, content: bytes, options: dict[str, Any], message: str
) -> None:
    """The error for a bad table is one line with the place and a remedy."""
    assert message in refused_table(content, **options)


def test_a_format_that_the_name_does_not_tell_is_asked_for(refused_table: Refused, to_table: Convert) -> None:
    """An extension that says nothing needs `format`."""
    assert "format='csv' or 'jsonl' (--format csv)" in refused_table(b"a\n1\n", name="in.txt")
    assert to_table(b"a\n1\n", name="in.txt", format="csv")[0].rows == 1


def test_a_long_row_is_read_and_an_endless_one_refused(
    to_table: Convert, refused_table: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is longer than a block is read in larger blocks. One longer than those is refused."""
    monkeypatch.setattr(csv_rows, "BLOCK_BYTES", (4096, 65536))
    assert to_table(b"a,b\n1," + b"x" * 50_000 + b"\n")[1]["b"].to_pylist() == ["x" * 50_000]
    assert "begins at line 3 is longer than 65536 bytes" in refused_table(
        b'a,b\n1,2\n1,"' + b"x\n" * 100_000 + b'"\n'
    )


def test_a_pass_that_was_given_up_reads_nothing_of_the_next_one(
    to_table: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow reads ahead in a thread, still when a row is too long. Each pass reads the same file."""
    read_chunk = Utf8Reader._read_chunk

    def read_slowly(reader: Utf8Reader) -> None:
        time.sleep(0.005)
        read_chunk(reader)

    monkeypatch.setattr(csv_rows, "BLOCK_BYTES", (4096, 65536))
    monkeypatch.setattr(utf8_reader, "_CHUNK", 4096)
    monkeypatch.setattr(Utf8Reader, "_read_chunk", read_slowly)
    rows = [b"x" * 10_000, *(b"%d" % n for n in range(5000))]
    table = to_table(b"a\n" + b"\n".join(rows) + b"\n")[1]
    assert table["a"].to_pylist() == [row.decode() for row in rows]


def test_row_groups_have_the_rows_asked_for(
    to_table: Convert, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row groups have `row_group_rows` rows, or fewer if these would take too much memory."""

    def groups() -> list[int]:
        metadata = pq.ParquetFile(root / "out.parquet").metadata
        return [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]

    content = b"a,b\n" + b"1,xxxxxxxxxxxxxxxx\n" * 250_000
    to_table(content, row_group_rows=100_000)
    assert groups() == [100_000, 100_000, 50_000]
    monkeypatch.setattr(tables, "GROUP_BYTES", 1_000_000)
    to_table(content, row_group_rows=100_000)
    assert max(groups()) < 100_000
    assert sum(groups()) == 250_000


def test_progress_is_in_bytes_of_both_passes(store: Storage, root: Path) -> None:
    """It ends at twice the length of the source."""
    (root / "in.csv").write_bytes(b"a,b\n" + b"1,2\n" * 1_000_000)
    seen: list[tuple[int, int | None]] = []
    job = ToParquet(source="in.csv", target="out.parquet")
    to_parquet(job, store, Context(report=lambda *done: seen.append(done)))
    assert seen[-1] == (8_000_008, 8_000_008)


def test_a_million_columns_are_refused(refused_table: Refused) -> None:
    """The number of columns, and the length of the header's line, are limited."""
    assert "over the limit of 4096" in refused_table(b"a" + b",a" * 100_000 + b"\n")
    assert "a line is longer" in refused_table(b"," * 3_000_000)
    assert "a row is longer" in refused_table(b'"\n",' * 750_000)


def test_a_file_that_changes_meanwhile_is_noticed(
    store: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes between the two passes is an error."""
    path = root / "in.csv"
    path.write_bytes(b"a\n1\n")
    learn = csv_rows.CsvRows.learn_schema

    def learn_then_change(rows: csv_rows.CsvRows) -> Any:
        schema = learn(rows)
        path.write_bytes(b"a\nx\n")
        return schema

    monkeypatch.setattr(csv_rows.CsvRows, "learn_schema", learn_then_change)
    with pytest.raises(BadInput, match="changed while it was read"):
        to_parquet(ToParquet(source="in.csv", target="out.parquet"), store, Context())
    assert [each.name for each in root.iterdir()] == ["in.csv"]
