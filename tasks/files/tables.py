"""Turn CSV or JSONL into Parquet in constant memory: learn the schema over the whole file, then convert."""

from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
from millpond.tasks.files.contract import TableResult, ToParquet
from millpond.tasks.files.csv_rows import CsvRows
from millpond.tasks.files.endings import TABLES, TableFormat, known_ending
from millpond.tasks.files.jsonl_rows import JsonlRows
from millpond.tasks.files.storage import Storage, file_length
from millpond.tasks.files.text import Utf8Reader

#: A row group ends before it takes more than this in memory, whatever number of rows was requested.
GROUP_BYTES = 64 * 1024 * 1024
#: So many values, absent ones included, a JSONL file may make however small it is.
ALWAYS_VALUES = 10_000_000


class Rows(Protocol):
    """Read a table twice: `schema` first, then `record_batches` of that schema."""

    def schema(self) -> Any:
        """Return the schema that every row fits."""

    def record_batches(self, schema: Any) -> Iterator[Any]:
        """Yield all rows as Arrow record batches of `schema`."""


def to_parquet(job: ToParquet, storage: Storage, context: Context) -> TableResult:
    """Write `job.source` as Parquet to `job.target`, the same bytes on each run.

    Progress is in bytes read, over two passes. Raises `BadInput` with the line and column at fault.
    """
    table_format = job.format or _table_format(job.source)
    with storage.open_input(job.source, empty_allowed=False) as file:
        rows = _open_rows(job, table_format, file, storage, context)
        schema = rows.schema()
        with storage.open_output(job.target) as output:
            count = _write_record_batches(rows.record_batches(schema), schema, job, output)
            size = file_length(output)
    return TableResult(target=job.target, bytes=size, rows=count, columns=len(schema))


def _table_format(url: str) -> TableFormat:
    """Return the format of a table, by its ending. Raises `BadInput` for an unknown ending."""
    if ending := known_ending(url, TABLES):
        return TABLES[ending][0]
    raise BadInput(
        f"{url} ends in none of {', '.join(TABLES)}: give its format, format='csv' or 'jsonl' (--format csv)"
    )


def _open_rows(
    job: ToParquet, table_format: TableFormat, file: BinaryIO, storage: Storage, context: Context
) -> Rows:
    """Return the reader for a table's format. The file is read anew for each pass."""
    length = file_length(file)
    passes = 0

    def advance(consumed: int) -> None:
        context.checkpoint()
        context.progress(min((passes - 1) * length + consumed, 2 * length), 2 * length)

    def opener(*, again: bool = False) -> Utf8Reader:
        nonlocal passes
        passes += again
        file.seek(0)
        return Utf8Reader(file, job.source, job.encoding, advance)

    if table_format == "csv":
        ending = known_ending(job.source, TABLES) or ".csv"
        return CsvRows(job, opener, job.delimiter or TABLES[ending][1] or ",")
    return JsonlRows(job, opener, max(ALWAYS_VALUES, length * storage.limits.max_unpacked_ratio))


def _write_record_batches(
    record_batches: Iterator[Any], schema: Any, job: ToParquet, output: BinaryIO
) -> int:
    """Write all record batches in row groups, and return the number of rows."""
    count = 0
    with pq.ParquetWriter(output, schema, compression=job.compression) as writer:
        for group in gather_row_groups(record_batches, schema, job.row_group_rows):
            writer.write_table(group, row_group_size=job.row_group_rows)
            count += len(group)
    return count


def gather_row_groups(record_batches: Iterator[Any], schema: Any, rows: int) -> Iterator[Any]:
    """Yield tables of `rows` rows from record batches. A table that reaches `GROUP_BYTES` has fewer."""
    held: list[Any] = []
    held_rows = held_bytes = 0
    for batch in record_batches:
        held.append(batch)
        held_rows, held_bytes = held_rows + len(batch), held_bytes + batch.nbytes
        if held_rows < rows and held_bytes < GROUP_BYTES:
            continue
        table = pa.Table.from_batches(held, schema)
        while len(table) >= rows:
            yield table.slice(0, rows)
            table = table.slice(rows)
        if table.nbytes >= GROUP_BYTES:
            yield table
            table = table.slice(len(table))
        held = table.to_batches()
        held_rows, held_bytes = len(table), table.nbytes
    if held_rows:
        yield pa.Table.from_batches(held, schema)
