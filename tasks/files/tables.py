"""Convert CSV or JSONL to Parquet in constant memory, in two passes: one for the schema, one for the rows."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
from millpond.tasks.files.contract import TableResult, ToParquet
from millpond.tasks.files.csv_rows import CsvRows
from millpond.tasks.files.endings import TABLE_FORMATS, TableFormat, find_ending
from millpond.tasks.files.jsonl_rows import JsonlRows
from millpond.tasks.files.storage import Storage, measure_and_rewind
from millpond.tasks.files.utf8_reader import Utf8Reader

#: A row group that takes this much memory is written, even if it has fewer rows than requested.
GROUP_BYTES = 64 * 1024 * 1024
#: The most values, absent ones included, that any JSONL file may have. A large file may have more.
ALWAYS_ALLOWED_VALUES = 10_000_000


def to_parquet(job: ToParquet, storage: Storage, context: Context) -> TableResult:
    """Write the source as Parquet to the target, the same bytes on each run.

    Progress is in bytes of the source, which is read twice. Raises `BadInput` with the line and column at
    fault.
    """
    storage.refuse_same_file(job.source, job.target)
    table_format = job.format or _table_format(job.source)
    with storage.open_input(job.source, empty_allowed=False) as file:
        rows = _open_reader(job, table_format, file, storage, context)
        schema = rows.learn_schema()
        with storage.open_output(job.target) as output:
            count = _write_record_batches(rows.read_record_batches(schema), schema, job, output)
            size = measure_and_rewind(output)
    return TableResult(target=job.target, bytes=size, rows=count, columns=len(schema))


def _table_format(url: str) -> TableFormat:
    """Return the format of a table by the ending of its name. Raises `BadInput` for another ending."""
    if ending := find_ending(url, TABLE_FORMATS):
        return TABLE_FORMATS[ending][0]
    endings = ", ".join(TABLE_FORMATS)
    raise BadInput(
        f"{url} ends in none of {endings}: give its format, format='csv' or 'jsonl' (--format csv)"
    )


def _open_reader(
    job: ToParquet, table_format: TableFormat, file: BinaryIO, storage: Storage, context: Context
) -> CsvRows | JsonlRows:
    """Return the reader of a table. It reports progress, and stops if the task is cancelled."""
    length = measure_and_rewind(file)
    passes = 0

    def report_progress(consumed: int) -> None:
        """Report the bytes of both passes. Raises `Cancelled`."""
        context.checkpoint()
        context.progress(min((passes - 1) * length + consumed, 2 * length), 2 * length)

    def open_text(*, begin_pass: bool = False) -> Utf8Reader:
        """Return the text from its beginning. `begin_pass` begins the next pass in the progress."""
        nonlocal passes
        passes += begin_pass
        file.seek(0)
        return Utf8Reader(file, job.source, job.encoding, report_progress)

    if table_format == "csv":
        ending = find_ending(job.source, TABLE_FORMATS) or ".csv"
        return CsvRows(job, open_text, job.delimiter or TABLE_FORMATS[ending][1] or ",")
    return JsonlRows(job, open_text, max(ALWAYS_ALLOWED_VALUES, length * storage.limits.max_unpacked_ratio))


def _write_record_batches(
    record_batches: Iterator[Any], schema: Any, job: ToParquet, output: BinaryIO
) -> int:
    """Write all record batches as a Parquet file. Return the number of rows."""
    count = 0
    with pq.ParquetWriter(output, schema, compression=job.compression) as writer:
        for group in gather_row_groups(record_batches, schema, job.row_group_rows):
            writer.write_table(group, row_group_size=job.row_group_rows)
            count += len(group)
    return count


def gather_row_groups(record_batches: Iterator[Any], schema: Any, rows: int) -> Iterator[Any]:
    """Yield the rows of record batches as tables of `rows` rows. A table of `GROUP_BYTES` may have fewer."""
    pending: list[Any] = []
    pending_rows = pending_bytes = 0
    for batch in record_batches:
        pending.append(batch)
        pending_rows, pending_bytes = pending_rows + len(batch), pending_bytes + batch.nbytes
        if pending_rows < rows and pending_bytes < GROUP_BYTES:
            continue
        table = pa.Table.from_batches(pending, schema)
        while len(table) >= rows:
            yield table.slice(0, rows)
            table = table.slice(rows)
        if table.nbytes >= GROUP_BYTES:
            yield table
            table = table.slice(len(table))
        pending = table.to_batches()
        pending_rows, pending_bytes = len(table), table.nbytes
    if pending_rows:
        yield pa.Table.from_batches(pending, schema)
