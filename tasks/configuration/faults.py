"""One line for each value that does not fit the settings: its place, the value, and the valid values."""

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
    value_type_of,
)
from millpond.tasks.configuration.sources import Sources
from millpond.tasks.configuration.toml_file import Keys
from millpond.tasks.field_faults import describe_fault
from millpond.tasks.name_suggestions import closest_name


def describe_faults(error: ValidationError, model: type[BaseModel], sources: Sources) -> str:
    """Return one line that names every value at fault and a valid one."""
    return "; ".join(_describe_fault(fault, model, sources) for fault in error.errors(include_url=False))


def _describe_fault(fault: Mapping[str, Any], model: type[BaseModel], sources: Sources) -> str:
    """Return the line about one fault: the place of the value, then its description."""
    path: Keys = tuple(part for part in fault["loc"] if part != "[key]")
    written = path[:-1] if fault["type"] == "missing" else path
    place = sources.place_of(written) or ""
    if not place or sources.variable_of(written) is None:
        shown = format_path(path) if path and path != ("table",) else "the pools and queues"
        place = f"{shown} ({place})" if place else shown
    return f"{place}: {_fault_text(fault, path, model, sources)}"


def _fault_text(fault: Mapping[str, Any], path: Keys, model: type[BaseModel], sources: Sources) -> str:
    """Return the description of one fault: why the value cannot be used, and what to write."""
    if "[key]" in fault["loc"]:
        return f"{path[-1]!r} is no name: write 1 to 60 letters, digits, . _ -"
    if fault["type"] == "extra_forbidden":
        return _unknown_name(path, model, sources)
    if fault["type"] == "missing":
        return _missing_keys(path, model, sources)
    if fault["type"] in ("value_error", "assertion_error") and not _is_quantity_fault(fault):
        return describe_fault(fault)
    field = field_at(model, path)
    if field is None:
        return describe_fault(fault)
    if is_table(field.annotation):
        inside = format_path(path)
        below = model_of(field.annotation)
        if below is not None and path[-1] in below.model_fields:
            return f"stands outside of every table: write it under [{format_path(path[:-1])}.NAME]"
        example = f"[{inside}.NAME]" if value_type_of(field.annotation) is not None else f"[{inside}]"
        return f"{_show_value(fault, field)} is no table: write {describe_values(field)} under {example}"
    return f"{_show_value(fault, field)} cannot be used: write {describe_values(field)}"


def _is_quantity_fault(fault: Mapping[str, Any]) -> bool:
    """True if the field's type refused the value: a description of its own follows."""
    return type(fault.get("ctx", {}).get("error")).__name__ == "BadQuantity"


def _show_value(fault: Mapping[str, Any], field: Any) -> str:
    """Return the value at fault, cut to 60 characters. A secret is not shown."""
    return "its value" if is_secret(field) else f"{fault.get('input')!r:.60}"


def _missing_keys(path: Keys, model: type[BaseModel], sources: Sources) -> str:
    """Return the keys that a table lacks. A pool without queues is most often another pool, misspelt."""
    field, table = field_at(model, path), path[:-1]
    words = f"{path[-1]} is missing: write {describe_values(field)}" if field else f"{path[-1]} is missing"
    if path[0] == "table" and len(path) == 4:
        meant = closest_name(
            str(path[2]), [each for each in _known_names(table[:-1], sources) if each != path[2]]
        )
        words = f'the pool {path[2]!r} has no queues: name those it takes from, as in queues = ["default"]'
        return f"{words}, or did you mean the pool {meant!r}?" if meant else words
    return words


def _known_names(path: Keys, sources: Sources) -> Sequence[str]:
    """Return the names in the table at a path: those that ship, and those of the file."""
    from millpond.tasks.pools import default_pools

    table: Any = sources.values
    for part in path:
        table = table.get(part, {}) if isinstance(table, dict) else {}
    return [*default_pools(), *(table if isinstance(table, dict) else ())]


def _unknown_name(path: Keys, model: type[BaseModel], sources: Sources) -> str:
    """Return the line about a name that does not exist: its place, a similar name, or all valid ones."""
    *table, name = path
    siblings = _names_beside(model, table)
    what = "table" if not table and isinstance(sources.values.get(str(name)), dict) else "setting"
    there_is = f"there is no such {what}"
    if not table and name in _known_names(("table", "pools"), sources):
        return f"{there_is}: write [pools.{name}] for the pool, or [queues.{name}] for the queue"
    if meant := closest_name(str(name), siblings):
        return f"{there_is}: did you mean {format_path((*table, meant))}?"
    for home in ("pools", "queues", "smtp", "files", "gateway", "schedule"):
        if str(name) in _names_below(model, home):
            by_name = str(table[-1]) if len(table) > 2 else "NAME"
            inside = f"{home}.{by_name}" if home in (*LIFTED, "schedule") else home
            return f"{there_is} here: did you mean {inside}.{name}?"
    return f"{there_is}; there are: {', '.join(sorted(siblings))}"


def _names_beside(model: type[BaseModel], table: Sequence[int | str]) -> list[str]:
    """Return the names of the settings that may be in a table."""
    if not table:
        return [*(name for name in model.model_fields if name != "table"), *LIFTED]
    field = field_at(model, table)
    below = None if field is None else model_of(field.annotation)
    return [] if below is None else list(below.model_fields)


def _names_below(model: type[BaseModel], home: str) -> list[str]:
    """Return the names of settings in a table, or in the tables by name that it holds."""
    field = field_at(model, LIFTED.get(home, (home,)))
    values = None if field is None else value_type_of(field.annotation)
    below = model_of(values if values is not None else field.annotation if field else None)
    return [] if below is None else list(below.model_fields)
