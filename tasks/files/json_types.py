"""Find one Arrow type for each name of a JSONL file, from its parts in order."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.columns import EXACT
from millpond.tasks.files.folders import shown

MAX_COLUMNS = 4096
#: An object of more names than this, over all rows, is a map rather than a record: its column is text.
MAX_NESTED = 512


#: A column's name, and those of the fields that lead to a value in it; a list is `[]`.
Path = tuple[str, ...]


class Types:
    """Learn the types of a file's columns: `learn` each part, then `finish`, then read."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.types: dict[str, Any] = {}
        #: The names of columns whose values no type fits; they are text.
        self.mixed: set[str] = set()
        #: Where integers are that a double would round: a column, and the names and lists below it.
        self._wide: set[Path] = set()

    @property
    def names(self) -> list[str]:
        """Return the columns' names, in order of first appearance."""
        return list(self.types)

    @property
    def leaves(self) -> int:
        """Return how many values one object takes, absent ones included."""
        return sum(_leaves(type_) for type_ in self.types.values()) or 1

    def schema(self) -> Any:
        """Return the schema by which the file can be read."""
        return pa.schema(list(self.types.items()))

    def learn(self, part: Any) -> None:
        """Learn from a part of the file: a table as pyarrow inferred it, or objects as Python parsed them."""
        columns = (
            _of_objects(part)
            if isinstance(part, list)
            else dict(zip(part.column_names, part.columns, strict=True))
        )
        for name, values in columns.items():
            array = _array_of(values)
            if array is None:
                self.mixed.add(name)
            else:
                self._wide.update(_wide_integers(array, (name,)))
            self._merge(name, pa.string() if array is None else _without_moments(array.type))
        if len(self.types) > MAX_COLUMNS:
            raise TooLarge(f"{self._url} has more than {MAX_COLUMNS} names: is its data keyed by a value?")

    def finish(self, declared: Mapping[str, str]) -> None:
        """Fix the types: values that no Parquet file or no double can hold are text."""
        if not self.types:
            raise BadInput(f"{self._url} names no value: there is no column to write")
        if unknown := sorted(set(declared) - set(self.types)):
            raise BadInput(f"{self._url} names no {shown(unknown[0])!r}, which `types` does")
        for name, type_ in self.types.items():
            rounded = any(path[0] == name and _at(type_, path[1:]) == pa.float64() for path in self._wide)
            as_text = declared.get(name) == "string" and type_ != pa.string()
            if rounded or as_text or _is_empty(type_) or (name in declared and pa.types.is_nested(type_)):
                self.mixed.add(name)
            self.types[name] = pa.string() if name in self.mixed else _without_null(type_)

    def _merge(self, name: str, type_: Any) -> None:
        known = self.types.get(name)
        merged = type_ if known is None else _common(known, type_)
        if merged is None or _leaves(merged) > MAX_NESTED:
            self.mixed.add(name)
        self.types[name] = pa.string() if name in self.mixed else merged


def _of_objects(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row[name] for row in rows if name in row] for name in names}


def _array_of(values: Any) -> Any | None:
    """Return a column as an array, or None where its values are of several kinds."""
    if not isinstance(values, list):
        return values.combine_chunks()
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError):
        return None


def _common(one: Any, other: Any) -> Any | None:
    """Return the type that values of both fit, or None."""
    if one == other:
        return one
    try:
        parts = [pa.schema([("it", type_)]) for type_ in (one, other)]
        return pa.unify_schemas(parts, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def doubles(array: Any) -> Iterator[Any]:
    """Yield the doubles in an array, at any depth, as arrays."""
    yield from (leaf for _, leaf in _leaf_arrays(array, ()) if leaf.type == pa.float64())


def _wide_integers(array: Any, path: Path) -> Iterator[Path]:
    """Yield where in an array integers are that a double would round."""
    for where, leaf in _leaf_arrays(array, path):
        if leaf.type == pa.int64() and any(
            end is not None and abs(end) > EXACT for end in pc.min_max(leaf).as_py().values()
        ):
            yield where


def _leaf_arrays(array: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if pa.types.is_struct(array.type):
        for at, field in enumerate(array.type):
            yield from _leaf_arrays(array.field(at), (*path, field.name))
    elif pa.types.is_list(array.type):
        yield from _leaf_arrays(array.values, (*path, "[]"))
    else:
        yield path, array


def _at(type_: Any, path: Path) -> Any | None:
    """Return the type to which a path leads, None where it leads to nothing."""
    for name in path:
        if pa.types.is_list(type_):
            type_ = type_.value_type
        elif pa.types.is_struct(type_):
            type_ = type_.field(name).type
        else:
            return None
    return type_


def _without_moments(type_: Any) -> Any:
    """Return the type with text where pyarrow took a text for a date."""
    return _replaced(type_, pa.types.is_timestamp)


def _without_null(type_: Any) -> Any:
    """Return the type with text where no value was ever seen."""
    return _replaced(type_, pa.types.is_null)


def _replaced(type_: Any, which: Any) -> Any:
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, _replaced(field.type, which)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(_replaced(type_.value_type, which))
    return pa.string() if which(type_) else type_


def _leaves(type_: Any) -> int:
    if pa.types.is_struct(type_):
        return sum(_leaves(field.type) for field in type_) or 1
    return _leaves(type_.value_type) if pa.types.is_list(type_) else 1


def _is_empty(type_: Any) -> bool:
    """Return True if an object without any name is in the type: Parquet has no column for it."""
    if pa.types.is_struct(type_):
        return type_.num_fields == 0 or any(_is_empty(field.type) for field in type_)
    return pa.types.is_list(type_) and _is_empty(type_.value_type)
