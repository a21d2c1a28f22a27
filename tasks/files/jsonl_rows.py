"""Read JSONL in two passes of constant memory: the first learns the columns' types, the last converts.

pyarrow parses a block at a time. Python's parser, which is slower and exact, parses the blocks that pyarrow
cannot: with values of several types under one name, or numbers that a double would round. A name with values
of several types becomes a column of JSON texts. A text with a date stays a text, because JSON has no dates.
"""

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.json

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files import json_types
from millpond.tasks.files.columns import (
    ARROW_TYPES,
    Column,
    convert_column,
    describe_misfit,
    find_first_misfit,
)
from millpond.tasks.files.contract import ToParquet
from millpond.tasks.files.escaping import escape_untrusted
from millpond.tasks.files.jsonl_lines import (
    Block,
    has_inexact_fraction,
    parse_block,
    read_blocks,
    split_block,
    value_to_text,
)
from millpond.tasks.files.utf8_reader import OpenText


class JsonlRows:
    """The objects of a JSONL file as record batches of one schema. A name that an object lacks is null."""

    def __init__(self, job: ToParquet, open_text: OpenText, max_values: int) -> None:
        self._job, self._open, self._max_values = job, open_text, max_values
        self._types = json_types.TypeLearner(job.source)
        #: The columns that are declared to have a type which is one of several Arrow types.
        self._declared = [
            Column(name, type_) for name, type_ in job.types.items() if len(ARROW_TYPES[type_]) > 1
        ]

    def learn_schema(self) -> Any:
        """Read the whole file, and return the schema that every object fits.

        A file with declared timestamps is read once more, for whether they have a time zone. Raises
        `BadInput` for a line that is not an object, and for a declared name that no object has. Raises
        `TooLarge` if there are too many rows times columns.
        """
        rows = 0
        for block in read_blocks(self._open(begin_pass=True), self._job.source):
            for piece in split_block(block, len(block.find_names()) or 1):
                self._types.learn_types(_read_with_arrow(piece) or parse_block(piece))
                rows += piece.rows
        self._types.fix_types(self._job.types)
        if rows * self._types.leaf_count > self._max_values:
            raise TooLarge(
                f"{self._job.source} makes {rows} rows of {self._types.leaf_count} values, nearly all "
                f"absent: over {self._max_values} values (max_unpacked_ratio a byte)"
            )
        # A value that does not fit is left for `read_record_batches`, which raises the error.
        for _, table in self._read_tables() if self._declared else ():
            for column in self._declared:
                column.learn_type(_as_texts(table[column.name].combine_chunks()))
        declared = {name: ARROW_TYPES[type_][0] for name, type_ in self._job.types.items()}
        found = {column.name: column.field.type for column in self._declared}
        return pa.schema(list({**self._types.types, **declared, **found}.items()))

    def read_record_batches(self, schema: Any) -> Iterator[Any]:
        """Read the file again, and yield the rows as Arrow record batches of the learned schema.

        Raises `BadInput` with the line of a value that does not fit.
        """
        for piece, table in self._read_tables():
            yield from self._convert_declared(table, piece, schema).to_batches()

    def _read_tables(self) -> Iterator[tuple[Block, Any]]:
        """Read the file, and yield its pieces, each with its rows as a table of the learned types."""
        learned_schema = pa.schema(list(self._types.types.items()))
        for block in read_blocks(self._open(begin_pass=True), self._job.source):
            for piece in split_block(block, self._types.leaf_count):
                table = None if self._types.mixed else _read_with_arrow(piece, learned_schema)
                if table is None:
                    table = self._make_table(parse_block(piece), learned_schema)
                yield piece, table

    def _make_table(self, rows: list[dict[str, Any]], schema: Any) -> Any:
        """Return parsed objects as a table of the schema. Raises `BadInput` if the file has changed.

        Values of the columns that hold several types are replaced by JSON text, in the objects themselves.
        """
        for row in rows:
            for name in self._types.mixed & row.keys():
                row[name] = value_to_text(row[name])
        try:
            return pa.Table.from_pylist(rows, schema=schema)
        except (pa.ArrowException, OverflowError) as error:
            raise BadInput(f"{self._job.source} changed while it was read: send the task again") from error

    def _convert_declared(self, table: Any, piece: Block, schema: Any) -> Any:
        """Return a table with the columns of declared types converted. Raises `BadInput`."""
        for index, field in enumerate(schema):
            if table.schema.field(index).type != field.type:
                column = table.column(index).combine_chunks()
                table = table.set_column(index, field, self._convert_column(column, field, piece))
        return table

    def _convert_column(self, column: Any, field: Any, piece: Block) -> Any:
        """Return a column in its declared type. Raises `BadInput` with the line and value at fault."""
        texts = _as_texts(column)
        converted = convert_column(texts, field.type)
        if converted is None:
            index = find_first_misfit(texts, field.type)
            subject = (
                f"{self._job.source}, line {piece.find_line_of_row(index)}, {escape_untrusted(field.name)!r}"
            )
            reason = describe_misfit(texts.slice(index, 1), field.type, self._job.types[field.name])
            raise BadInput(f"{subject}: {escape_untrusted(texts[index].as_py())!r} {reason}")
        return converted


def _as_texts(column: Any) -> Any:
    return column if column.type == pa.string() else column.cast(pa.string())


def _read_with_arrow(piece: Block, schema: Any = None) -> Any | None:
    """Return a block as a table that pyarrow has parsed, of the schema if there is one.

    Return None if pyarrow cannot parse it or may have rounded a number. `parse_block` then parses it, or
    finds its fault.
    """
    if schema is None and has_inexact_fraction(piece.data):
        return None
    try:
        table = pa.json.read_json(
            io.BytesIO(piece.data),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(piece.data) + 1),
            parse_options=pa.json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "error"
            ),
        )
    except pa.ArrowInvalid:
        return None
    if len(table) != piece.rows or (schema is None and json_types.may_be_rounded(table)):
        return None
    return table
