"""Find one Arrow type for each name in the objects of a JSONL file, from its parts in order."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.columns import MAX_EXACT_INTEGER, has_wide_integer, largest_magnitude
from millpond.tasks.files.escaping import escape_untrusted

MAX_COLUMNS = 4096
#: A column with more nested names than this, over all rows, holds maps and not records: it is text.
MAX_NESTED = 512

#: A column's name, and the names of the fields that lead to a value in it; `[]` for a list.
FieldPath = tuple[str, ...]


class TypeLearner:
    """Learns the types of a file's columns: call `learn_types` with each part, and `fix_types` at the end."""

    def __init__(self, url: str) -> None:
        self._url = url
        #: The type of each column, in the order of their first appearance.
        self.types: dict[str, Any] = {}
        #: The names of columns whose values no type fits; these columns are text.
        self.mixed: set[str] = set()
        #: The paths to integers that a double would round.
        self._wide: set[FieldPath] = set()

    @property
    def leaf_count(self) -> int:
        """The number of values in a row, at any depth, absent ones included; at least 1."""
        return sum(_count_leaves(type_) for type_ in self.types.values()) or 1

    def learn_types(self, part: Any) -> None:
        """Learn from a part of the file: a table that pyarrow has read, or objects that Python has parsed.

        Raises `TooLarge` if the file has more than `MAX_COLUMNS` names.
        """
        is_parsed = isinstance(part, list)
        columns = (
            _collect_values(part) if is_parsed else dict(zip(part.column_names, part.columns, strict=True))
        )
        for name, values in columns.items():
            array = _to_array(values)
            if array is None:
                self.mixed.add(name)
            else:
                leaves = _leaf_arrays(array, (name,))
                self._wide.update(path for path, leaf in leaves if has_wide_integer(leaf))
            # pyarrow infers timestamps from texts, and JSON has none.
            type_ = pa.string() if array is None else _replace_with_text(array.type, pa.types.is_timestamp)
            self._merge_type(name, type_)
        if len(self.types) > MAX_COLUMNS:
            raise TooLarge(f"{self._url} has more than {MAX_COLUMNS} names: is its data keyed by a value?")

    def fix_types(self, declared: Mapping[str, str]) -> None:
        """Make a column text if no Parquet file or double can hold its values, or if it is declared as text.

        A nested column with a declared type becomes text, too, which is converted later. Raises `BadInput` if
        the file has no names, or lacks one that is declared.
        """
        if not self.types:
            raise BadInput(f"{self._url} names no value: there is no column to write")
        if unknown := sorted(set(declared) - set(self.types)):
            raise BadInput(f"{self._url} names no {escape_untrusted(unknown[0])!r}, which `types` does")
        for name, type_ in self.types.items():
            paths = (path[1:] for path in self._wide if path[0] == name)
            is_rounded = any(_type_at(type_, path) == pa.float64() for path in paths)
            is_declared_text = declared.get(name) == "string" and type_ != pa.string()
            is_declared_nested = name in declared and pa.types.is_nested(type_)
            if is_rounded or is_declared_text or is_declared_nested or _has_empty_object(type_):
                self.mixed.add(name)
            # A field without any value has the null type.
            fixed = pa.string() if name in self.mixed else _replace_with_text(type_, pa.types.is_null)
            self.types[name] = fixed

    def _merge_type(self, name: str, type_: Any) -> None:
        """Replace the type of a column by one that fits its values so far and those of another type."""
        earlier = self.types.get(name)
        merged = type_ if earlier is None else _find_common_type(earlier, type_)
        if merged is None or _count_leaves(merged) > MAX_NESTED:
            self.mixed.add(name)
        self.types[name] = pa.string() if name in self.mixed else merged


def _collect_values(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each name in the objects, without absent ones."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row[name] for row in rows if name in row] for name in names}


def _to_array(values: Any) -> Any | None:
    """Return a column as an array. Return None if no type fits all its values."""
    if not isinstance(values, list):
        return values.combine_chunks()
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError):
        return None


def _find_common_type(first: Any, second: Any) -> Any | None:
    """Return a type that the values of both types fit. Return None if there is none."""
    if first == second:
        return first
    try:
        schemas = [pa.schema([("value", type_)]) for type_ in (first, second)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def may_be_rounded(table: Any) -> bool:
    """True if a double in a table that pyarrow has read may have been an integer with other digits."""
    leaves = (leaf for column in table.columns for _, leaf in _leaf_arrays(column.combine_chunks(), ()))
    return any(leaf.type == pa.float64() and largest_magnitude(leaf) >= MAX_EXACT_INTEGER for leaf in leaves)


def _leaf_arrays(array: Any, path: FieldPath) -> Iterator[tuple[FieldPath, Any]]:
    """Yield the arrays of plain values in a nested array, at any depth, each with its path."""
    if pa.types.is_struct(array.type):
        for index, field in enumerate(array.type):
            yield from _leaf_arrays(array.field(index), (*path, field.name))
    elif pa.types.is_list(array.type):
        yield from _leaf_arrays(array.values, (*path, "[]"))
    else:
        yield path, array


def _type_at(type_: Any, path: FieldPath) -> Any | None:
    """Return the type at the end of a path. Return None if the path leads to no type."""
    for name in path:
        if pa.types.is_list(type_):
            type_ = type_.value_type
        elif pa.types.is_struct(type_):
            type_ = type_.field(name).type
        else:
            return None
    return type_


def _replace_with_text(type_: Any, is_replaced: Any) -> Any:
    """Return a type with text in place of each leaf for which `is_replaced` is true."""
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, _replace_with_text(field.type, is_replaced)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(_replace_with_text(type_.value_type, is_replaced))
    return pa.string() if is_replaced(type_) else type_


def _count_leaves(type_: Any) -> int:
    """Return the number of plain values in a type, at any depth; 1 for an object without names."""
    if pa.types.is_struct(type_):
        return sum(_count_leaves(field.type) for field in type_) or 1
    return _count_leaves(type_.value_type) if pa.types.is_list(type_) else 1


def _has_empty_object(type_: Any) -> bool:
    """True if a type is or contains an object without names, for which Parquet has no column."""
    if pa.types.is_struct(type_):
        return type_.num_fields == 0 or any(_has_empty_object(field.type) for field in type_)
    return pa.types.is_list(type_) and _has_empty_object(type_.value_type)
