"""Find one Arrow type for each name of a JSONL file, from its parts in order."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.columns import EXACT
from millpond.tasks.files.folders import printable

MAX_COLUMNS = 4096
#: An object of more names than this, over all rows, is a map rather than a record: its column is text.
MAX_NESTED = 512


#: A column's name, and the names of the fields that lead to a value in it; a list is `[]`.
Path = tuple[str, ...]


class TypeLearner:
    """Learns the types of a file's columns: `learn_types` from each part, then `fix_types`, then read."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.types: dict[str, Any] = {}
        #: The names of columns whose values no type fits; these columns are text.
        self.mixed: set[str] = set()
        #: Where integers are that a double would round: a column, and the names and lists below it.
        self._wide: set[Path] = set()

    @property
    def names(self) -> list[str]:
        """Return the columns' names, in order of first appearance."""
        return list(self.types)

    @property
    def leaf_count(self) -> int:
        """Return the number of values that one object takes, absent ones included."""
        return sum(_count_leaves(type_) for type_ in self.types.values()) or 1

    def read_schema(self) -> Any:
        """Return the schema by which the file can be read."""
        return pa.schema(list(self.types.items()))

    def learn_types(self, part: Any) -> None:
        """Learn from a part of the file: a table as pyarrow inferred it, or objects as Python parsed them.

        Raises `TooLarge` if the file has more than `MAX_COLUMNS` names.
        """
        columns = (
            _values_by_name(part)
            if isinstance(part, list)
            else dict(zip(part.column_names, part.columns, strict=True))
        )
        for name, values in columns.items():
            array = _to_array(values)
            if array is None:
                self.mixed.add(name)
            else:
                self._wide.update(_wide_integer_paths(array, (name,)))
            self._merge_type(name, pa.string() if array is None else _dates_to_text(array.type))
        if len(self.types) > MAX_COLUMNS:
            raise TooLarge(f"{self._url} has more than {MAX_COLUMNS} names: is its data keyed by a value?")

    def fix_types(self, declared: Mapping[str, str]) -> None:
        """Fix the types: values that no Parquet file or no double can hold are text.

        Raises `BadInput` if the file has no names, or lacks one whose type is declared.
        """
        if not self.types:
            raise BadInput(f"{self._url} names no value: there is no column to write")
        if unknown := sorted(set(declared) - set(self.types)):
            raise BadInput(f"{self._url} names no {printable(unknown[0])!r}, which `types` does")
        for name, type_ in self.types.items():
            rounded = any(
                path[0] == name and _type_at(type_, path[1:]) == pa.float64() for path in self._wide
            )
            as_text = declared.get(name) == "string" and type_ != pa.string()
            if (
                rounded
                or as_text
                or _has_empty_object(type_)
                or (name in declared and pa.types.is_nested(type_))
            ):
                self.mixed.add(name)
            self.types[name] = pa.string() if name in self.mixed else _nulls_to_text(type_)

    def _merge_type(self, name: str, type_: Any) -> None:
        """Merge the type of a batch's column into the column's type."""
        earlier = self.types.get(name)
        merged = type_ if earlier is None else _common_type(earlier, type_)
        if merged is None or _count_leaves(merged) > MAX_NESTED:
            self.mixed.add(name)
        self.types[name] = pa.string() if name in self.mixed else merged


def _values_by_name(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row[name] for row in rows if name in row] for name in names}


def _to_array(values: Any) -> Any | None:
    """Return a column as an array, or None if its values are of several kinds."""
    if not isinstance(values, list):
        return values.combine_chunks()
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError):
        return None


def _common_type(one: Any, other: Any) -> Any | None:
    """Return the type that values of both fit, or None."""
    if one == other:
        return one
    try:
        parts = [pa.schema([("it", type_)]) for type_ in (one, other)]
        return pa.unify_schemas(parts, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def double_arrays(array: Any) -> Iterator[Any]:
    """Yield the doubles in an array, at any depth, as arrays."""
    yield from (leaf for _, leaf in _leaf_arrays(array, ()) if leaf.type == pa.float64())


def _wide_integer_paths(array: Any, path: Path) -> Iterator[Path]:
    """Yield the paths in an array to integers that a double would round."""
    for where, leaf in _leaf_arrays(array, path):
        if leaf.type == pa.int64() and any(
            end is not None and abs(end) > EXACT for end in pc.min_max(leaf).as_py().values()
        ):
            yield where


def _leaf_arrays(array: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield the arrays of plain values in a nested array, each with its path."""
    if pa.types.is_struct(array.type):
        for at, field in enumerate(array.type):
            yield from _leaf_arrays(array.field(at), (*path, field.name))
    elif pa.types.is_list(array.type):
        yield from _leaf_arrays(array.values, (*path, "[]"))
    else:
        yield path, array


def _type_at(type_: Any, path: Path) -> Any | None:
    """Return the type at the end of a path. Return None if the path leads to no type."""
    for name in path:
        if pa.types.is_list(type_):
            type_ = type_.value_type
        elif pa.types.is_struct(type_):
            type_ = type_.field(name).type
        else:
            return None
    return type_


def _dates_to_text(type_: Any) -> Any:
    """Return the type with text in place of each date that pyarrow made of a text."""
    return _replace_leaves(type_, pa.types.is_timestamp)


def _nulls_to_text(type_: Any) -> Any:
    """Return the type with text in place of each type without any value."""
    return _replace_leaves(type_, pa.types.is_null)


def _replace_leaves(type_: Any, is_replaced: Any) -> Any:
    """Return a type with text in place of each leaf for which `is_replaced` is true."""
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, _replace_leaves(field.type, is_replaced)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(_replace_leaves(type_.value_type, is_replaced))
    return pa.string() if is_replaced(type_) else type_


def _count_leaves(type_: Any) -> int:
    if pa.types.is_struct(type_):
        return sum(_count_leaves(field.type) for field in type_) or 1
    return _count_leaves(type_.value_type) if pa.types.is_list(type_) else 1


def _has_empty_object(type_: Any) -> bool:
    """True if the type contains an object without any name, for which Parquet has no column."""
    if pa.types.is_struct(type_):
        return type_.num_fields == 0 or any(_has_empty_object(field.type) for field in type_)
    return pa.types.is_list(type_) and _has_empty_object(type_.value_type)
