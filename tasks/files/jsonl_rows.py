"""Read JSONL in two passes of constant memory: the first learns the columns' types, the second converts.

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
from millpond.tasks.files.columns import ARROW_TYPES, convert_column, find_first_misfit
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

    def learn_schema(self) -> Any:
        """Read the whole file, the first of two times, and return the schema that every object fits.

        Raises `BadInput` for a line that is not an object, and for a declared name that no object has. Raises
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
        return pa.schema([pa.field(name, self._target_type(name)) for name in self._types.names])

    def read_record_batches(self, schema: Any) -> Iterator[Any]:
        """Read the file again, and yield the rows as Arrow record batches of the learned schema.

        Raises `BadInput` with the line of a value that does not fit.
        """
        learned_schema = self._types.make_schema()
        for block in read_blocks(self._open(begin_pass=True), self._job.source):
            for piece in split_block(block, self._types.leaf_count):
                table = None if self._types.mixed else _read_with_arrow(piece, learned_schema)
                if table is None:
                    table = self._make_table(parse_block(piece), learned_schema)
                yield from self._convert_declared(table, piece, schema).to_batches()

    def _target_type(self, name: str) -> Any:
        """Return the type of a column in the output: the declared one, or else the learned one."""
        declared = self._job.types.get(name)
        return ARROW_TYPES[declared][0] if declared else self._types.types[name]

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
        """Return a column in its declared type.

        Raises `BadInput` with the line and the value that does not fit.
        """
        texts = column if column.type == pa.string() else column.cast(pa.string())
        converted = convert_column(texts, field.type)
        if converted is None:
            index = find_first_misfit(texts, field.type)
            subject = (
                f"{self._job.source}, line {piece.find_line_of_row(index)}, {escape_untrusted(field.name)!r}"
            )
            raise BadInput(
                f"{subject}: {escape_untrusted(texts[index].as_py())!r} is no {self._job.types[field.name]}"
            )
        return converted


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
