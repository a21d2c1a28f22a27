"""Read CSV in two passes of constant memory: the first learns the columns' types, the second converts."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.csv

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files import csv_lines
from millpond.tasks.files.columns import Column, convert_column, describe_misfit, find_first_misfit
from millpond.tasks.files.contract import ToParquet
from millpond.tasks.files.csv_quotes import QuoteCheckingReader, QuoteFault, find_first_fault
from millpond.tasks.files.escaping import escape_untrusted
from millpond.tasks.files.utf8_reader import OpenText

#: The sizes of a block of the CSV reader, in which a row must fit. The second is for files with longer rows.
BLOCK_BYTES = (1024 * 1024, 16 * 1024 * 1024)
MAX_COLUMNS = 4096


class _RowOverBlock(Exception):
    """A row is longer than the block of the CSV reader."""


class CsvRows:
    """The rows of a CSV file as record batches of one schema.

    The first row names the columns. An empty field is null. In a column of text, `""` is an empty text.
    """

    def __init__(self, job: ToParquet, open_text: OpenText, delimiter: str) -> None:
        self._job, self._open, self._block, self._delimiter = job, open_text, BLOCK_BYTES[0], delimiter
        self._names: list[str] = []
        #: The number of lines before the header.
        self._lines_before = 0
        #: True once the quotes of the whole file have been checked.
        self._is_checked = False

    def learn_schema(self) -> Any:
        """Read the whole file, the first of two times, and return the schema that every row fits.

        Raises `BadInput` with the line at fault, and `TooLarge` for a row that is longer than the largest
        block, or for too many columns.
        """
        self._names = self._read_header()
        for self._block in BLOCK_BYTES:
            columns = [Column(name, self._job.types.get(name)) for name in self._names]
            try:
                self._learn_types(columns)
                self._is_checked = True
                return pa.schema([column.field for column in columns])
            except _RowOverBlock:
                continue
        raise self._long_row_error()

    def read_record_batches(self, schema: Any) -> Iterator[Any]:
        """Read the file again, and yield the rows as Arrow record batches of the learned schema.

        Raises `BadInput` if the file has changed since `learn_schema` was called.
        """
        for batch in self._read_text_batches():
            columns = [convert_column(batch.column(index), field.type) for index, field in enumerate(schema)]
            if any(column is None for column in columns):
                raise BadInput(f"{self._job.source} changed while it was read: send the task again")
            yield pa.record_batch(columns, schema=schema)

    def _learn_types(self, columns: list[Column]) -> None:
        """Learn the type of each column from the whole file.

        Raises `BadInput` with the value that does not fit a declared type.
        """
        rows_before = 0
        for batch in self._read_text_batches():
            for texts, column in zip(batch.columns, columns, strict=True):
                if not column.learn_type(texts):
                    raise self._type_error(column, texts, rows_before)
            rows_before += len(batch)

    def _read_text_batches(self) -> Iterator[Any]:
        """Yield the rows below the header as record batches with every column as text.

        Raises `BadInput` with the line at fault, and `_RowOverBlock`.
        """
        text = self._open(begin_pass=True)
        # The quotes are checked in the first pass only.
        source = text if self._is_checked else QuoteCheckingReader(text, self._delimiter)
        # Arrow reads ahead in a thread, which may go on after an error. Closing the source waits for its read
        # and ends it, because the next reader of the text reads the same file.
        with (
            self._translate_errors(),
            io.BufferedReader(source, self._block) as buffered,
            self._open_arrow_reader(buffered) as reader,
        ):
            yield from reader

    def _open_arrow_reader(self, text: Any) -> Any:
        """Return Arrow's reader of the rows below the header, which has every column as text."""
        return pa.csv.open_csv(
            text,
            read_options=pa.csv.ReadOptions(
                use_threads=False,
                block_size=self._block,
                column_names=self._names,
                skip_rows=self._lines_before,
                skip_rows_after_names=1,
            ),
            parse_options=pa.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in self._names},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                check_utf8=False,
            ),
        )

    def _read_header(self) -> list[str]:
        """Read the header and return the columns' names. An empty name becomes `column_` and its number.

        Sets the delimiter if the file declares one, and the number of lines before the header. Raises
        `BadInput` for a name that comes twice, or that `types` has and the header has not, and `TooLarge`.
        """
        url = self._job.source
        declared = csv_lines.read_declared_delimiter(self._open())
        if declared and self._job.delimiter in (None, declared):
            self._delimiter, self._lines_before = declared, 1
        try:
            line, row = csv_lines.read_header(self._open(), self._delimiter, url, self._lines_before)
        except csv_lines.NoHeader as error:
            fault = find_first_fault(self._open(), self._delimiter)
            raise (self._quote_fault_error(fault) if fault else BadInput(str(error))) from error
        if self._job.delimiter is None and not declared:
            csv_lines.refuse_ambiguous_delimiter(self._open, self._delimiter, url)
        self._lines_before = line - 1
        names = [name or f"column_{number}" for number, name in enumerate(row, 1)]
        subject = f"{self._job.source}, line {line},"
        if len(names) > MAX_COLUMNS:
            raise TooLarge(f"{subject} names {len(names)} columns, over the limit of {MAX_COLUMNS}")
        for number, name in enumerate(names, 1):
            first = names.index(name) + 1
            if first < number:
                both = f"columns {first} and {number} both {escape_untrusted(name)!r}"
                raise BadInput(f"{subject} names {both}: rename one")
        if unknown := sorted(set(self._job.types) - set(names)):
            raise BadInput(f"{subject} names no column {escape_untrusted(unknown[0])!r}, which `types` does")
        return names

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn an error of Arrow or a `QuoteFault` in the block into `BadInput` with the line at fault.

        Raises `_RowOverBlock` if a row is longer than the block of the CSV reader.
        """
        try:
            yield
        except QuoteFault as fault:
            raise self._shape_error(fault) from fault
        except pa.ArrowInvalid as error:
            if "straddling" in str(error):
                raise _RowOverBlock from error
            raise self._shape_error(error) from error

    def _shape_error(self, error: pa.ArrowInvalid | QuoteFault) -> BadInput:
        """Return the error for the first row with too few or too many columns, or with a quote at fault."""
        width, delimiter = len(self._names), self._delimiter
        quote = error if isinstance(error, QuoteFault) else find_first_fault(self._open(), delimiter)
        quote_line = csv_lines.find_line_of_offset(self._open(), quote.offset) if quote else None
        ragged = csv_lines.find_ragged_row(self._open(), delimiter, width, self._lines_before, quote_line)
        if ragged is None and quote:
            return self._quote_fault_error(quote)
        if ragged is None:
            return BadInput(f"{self._job.source} cannot be read as CSV: {escape_untrusted(str(error))}")
        line, columns = ragged
        return BadInput(
            f"{self._job.source}, line {line}, has {columns} columns where the header has {width}: "
            "mend the line, or give the right delimiter (--delimiter)"
        )

    def _quote_fault_error(self, fault: QuoteFault) -> BadInput:
        """Return the error for a quote at fault, with its line."""
        line = csv_lines.find_line_of_offset(self._open(), fault.offset)
        subject = f"{self._job.source}, line {line}, opens a quote that"
        if not fault.closes:
            return BadInput(f"{subject} never closes: mend the line; a quote that is a character is doubled")
        text = escape_untrusted(fault.text.decode(errors="replace"))
        return BadInput(f"{subject} closes before {text!r}: mend the line; a quote inside a field is doubled")

    def _type_error(self, column: Column, texts: Any, rows_before: int) -> BadInput:
        """Return the error for the first value of a batch that does not fit its column, with its line."""
        assert column.declared is not None
        index = find_first_misfit(texts, column.field.type)
        line = csv_lines.find_line_of_row(
            self._open(), self._delimiter, rows_before + index, self._lines_before
        )
        value = escape_untrusted(texts[index].as_py() or "")
        subject = f"{self._job.source}, line {line}, column {escape_untrusted(column.name)!r}"
        reason = describe_misfit(texts.slice(index, 1), column.field.type, column.declared)
        return BadInput(f"{subject}: {value!r} {reason}")

    def _long_row_error(self) -> TooLarge:
        """Return the error for a row that is longer than the largest block."""
        line = csv_lines.find_line_of_longer_row(self._open(), BLOCK_BYTES[-1])
        return TooLarge(
            f"{self._job.source}: the row that begins at line {line} is longer than {BLOCK_BYTES[-1]} bytes: "
            "a quote that is never closed?"
        )
