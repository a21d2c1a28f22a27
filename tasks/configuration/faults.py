"""Describe values that cannot be used as settings: the source of each, the value, and the valid values."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from millpond.tasks.configuration.model_fields import (
    LIFTED,
    describe_values,
    field_at,
    format_path,
    is_secret,
    is_table,
    model_of,
    path_in_file,
    table_names,
    value_type_of,
)
from millpond.tasks.configuration.sources import Sources
from millpond.tasks.configuration.toml_file import Keys
from millpond.tasks.configuration.variable_names import entry_names
from millpond.tasks.field_faults import describe_fault
from millpond.tasks.name_suggestions import closest_name
from millpond.tasks.pools import default_pools
from millpond.tasks.toml_names import table_header


def describe_faults(error: ValidationError, model: type[BaseModel], sources: Sources) -> str:
    """Return one line about all faults: for each its setting and source, the value, and the valid values."""
    return "; ".join(_describe_fault(fault, model, sources) for fault in error.errors(include_url=False))


def _describe_fault(fault: Mapping[str, Any], model: type[BaseModel], sources: Sources) -> str:
    """Return the text about one of pydantic's errors, with its reason at the end.

    It begins with the setting and the file and line that it stands in, or with the environment variable
    alone, which names the setting.
    """
    # "[key]" is pydantic's mark for an error in a key. A missing key stands in no file, but its table does.
    path: Keys = tuple(part for part in fault["loc"] if part != "[key]")
    written_path = path[:-1] if fault["type"] == "missing" else path
    source = sources.source_of(written_path) or ""
    if not source or sources.variable_of(written_path) is None:
        setting = format_path(path) if path and path != ("table",) else "the pools and queues"
        source = f"{setting} ({source})" if source else setting
    return f"{source}: {_fault_text(fault, path, model, sources)}"


def _fault_text(fault: Mapping[str, Any], path: Keys, model: type[BaseModel], sources: Sources) -> str:
    """Return why a value cannot be used, and what to write instead."""
    if "[key]" in fault["loc"]:
        return f"{path[-1]!r} is no name: write 1 to 60 letters, digits, . _ -"
    if fault["type"] == "extra_forbidden":
        return _unquoted_name_text(path, fault["input"]) or _unknown_name_text(path, model, sources)
    if fault["type"] == "missing":
        return _missing_key_text(path, model, sources)
    if fault["type"] in ("value_error", "assertion_error") and not _is_quantity_fault(fault):
        return describe_fault(fault)
    field = field_at(model, path)
    if field is None:
        return describe_fault(fault)
    if is_table(field.annotation):
        table_name, table_model = format_path(path), model_of(field.annotation)
        if table_model is not None and path[-1] in table_model.model_fields:
            return f"stands outside of every table: write it under [{format_path(path[:-1])}.NAME]"
        example = f"[{table_name}.NAME]" if value_type_of(field.annotation) is not None else f"[{table_name}]"
        return f"{_show_value(fault, field)} is no table: write {describe_values(field)} under {example}"
    return f"{_show_value(fault, field)} cannot be used: write {describe_values(field)}"


def _is_quantity_fault(fault: Mapping[str, Any]) -> bool:
    """True if the value is no duration, rate or bound. Then the valid values of the field are described."""
    return type(fault.get("ctx", {}).get("error")).__name__ == "BadQuantity"


def _show_value(fault: Mapping[str, Any], field: Any) -> str:
    """Return the `repr` of the value at fault, cut to 60 characters; "its value" for a secret."""
    return "its value" if is_secret(field) else f"{fault.get('input')!r:.60}"


def _missing_key_text(path: Keys, model: type[BaseModel], sources: Sources) -> str:
    """Return the text about a key that must be given: `queues` of a pool, or another.

    A pool without `queues` is most often another pool, misspelt, so a pool with a similar name is suggested.
    """
    if path[0] == "table" and len(path) == 4:
        pool = path[2]
        others = [name for name in _pool_names(sources) if name != pool]
        suggestion = closest_name(str(pool), others)
        text = f'the pool {pool!r} has no queues: name those it takes from, as in queues = ["default"]'
        return f"{text}, or did you mean the pool {suggestion!r}?" if suggestion else text
    field = field_at(model, path)
    return f"{path[-1]} is missing: write {describe_values(field)}" if field else f"{path[-1]} is missing"


def _pool_names(sources: Sources) -> Sequence[str]:
    """Return the names of the pools that ship with Millpond, and of those in the settings."""
    return [*default_pools(), *entry_names(("table", "pools"), sources.values)]


def _unquoted_name_text(path: Keys, value: Any) -> str | None:
    """Return the text about a name with a dot and without quotes, which made a table in a table, or None."""
    table, *name = path_in_file(path)
    if table not in (*LIFTED, "schedule") or len(name) < 2 or not isinstance(value, Mapping):
        return None
    while len(value) == 1 and isinstance(inner := next(iter(value.values())), Mapping):
        name, value = [*name, *value], inner
    return f"a name with a dot needs quotes: write {table_header(str(table), '.'.join(map(str, name)))}"


def _unknown_name_text(path: Keys, model: type[BaseModel], sources: Sources) -> str:
    """Return the text about an unknown name: its right table, a similar name, or all valid names."""
    *table_path, name = path
    siblings = _names_in_table(model, table_path)
    is_table_name = not table_path and isinstance(sources.values.get(str(name)), dict)
    there_is = f"there is no such {'table' if is_table_name else 'setting'}"
    if not table_path and name in _pool_names(sources):
        pool_table, queue_table = table_header("pools", str(name)), table_header("queues", str(name))
        return f"{there_is}: write {pool_table} for the pool, or {queue_table} for the queue"
    if similar := closest_name(str(name), siblings):
        return f"{there_is}: did you mean {format_path((*table_path, similar))}?"
    for other in table_names(model):
        if str(name) in _names_in_entries(model, other):
            entry = table_path[-1] if len(table_path) > 2 else "NAME"
            right_table = (other, entry) if other in (*LIFTED, "schedule") else (other,)
            return f"{there_is} here: did you mean {format_path((*right_table, name))}?"
    return f"{there_is}; there are: {', '.join(sorted(siblings))}"


def _names_in_table(model: type[BaseModel], table_path: Sequence[int | str]) -> list[str]:
    """Return the valid names in the table at a path; the names at the top for an empty path."""
    if not table_path:
        return [*(name for name in model.model_fields if name != "table"), *LIFTED]
    field = field_at(model, table_path)
    return [] if field is None else _field_names(field.annotation)


def _names_in_entries(model: type[BaseModel], table_name: str) -> list[str]:
    """Return the valid names in a top-level table. For a table by name: in each of its entries."""
    field = field_at(model, LIFTED.get(table_name, (table_name,)))
    return [] if field is None else _field_names(value_type_of(field.annotation) or field.annotation)


def _field_names(annotation: Any) -> list[str]:
    """Return the names of a model's fields. Return no name for a type that is no model."""
    model = model_of(annotation)
    return [] if model is None else list(model.model_fields)
