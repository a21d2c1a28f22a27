"""One line for each value that does not fit the settings: its place, the value, and the valid values."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from millpond.tasks.configuration.model_fields import (
    LIFTED,
    at,
    is_secret,
    is_table,
    may_be,
    model_of,
    shown_path,
    values_of,
)
from millpond.tasks.configuration.sources import Sources
from millpond.tasks.configuration.toml_file import Keys
from millpond.tasks.field_faults import in_words
from millpond.tasks.name_suggestions import closest


def explained(error: ValidationError, model: type[BaseModel], sources: Sources) -> str:
    """Return one line that names every value at fault and a right one."""
    return "; ".join(_line(fault, model, sources) for fault in error.errors(include_url=False))


def _line(fault: Mapping[str, Any], model: type[BaseModel], sources: Sources) -> str:
    path: Keys = tuple(part for part in fault["loc"] if part != "[key]")
    written = path[:-1] if fault["type"] == "missing" else path
    place = sources.place(written) or ""
    if not place or sources.variable(written) is None:
        shown = shown_path(path) if path and path != ("table",) else "the pools and queues"
        place = f"{shown} ({place})" if place else shown
    return f"{place}: {_words(fault, path, model, sources)}"


def _words(fault: Mapping[str, Any], path: Keys, model: type[BaseModel], sources: Sources) -> str:
    if "[key]" in fault["loc"]:
        return f"{path[-1]!r} is no name: write 1 to 60 letters, digits, . _ -"
    if fault["type"] == "extra_forbidden":
        return _unknown_name(path, model, sources)
    if fault["type"] == "missing":
        return _missing(path, model, sources)
    if fault["type"] in ("value_error", "assertion_error") and not _is_quantity(fault):
        return in_words(fault)
    field = at(model, path)
    if field is None:
        return in_words(fault)
    if is_table(field.annotation):
        inside = shown_path(path)
        below = model_of(field.annotation)
        if below is not None and path[-1] in below.model_fields:
            return f"stands outside of every table: write it under [{shown_path(path[:-1])}.NAME]"
        example = f"[{inside}.NAME]" if values_of(field.annotation) is not None else f"[{inside}]"
        return f"{_shown(fault, field)} is no table: write {may_be(field)} under {example}"
    return f"{_shown(fault, field)} cannot be used: write {may_be(field)}"


def _is_quantity(fault: Mapping[str, Any]) -> bool:
    """True for a refusal by the type of a field: the line has its words already."""
    return type(fault.get("ctx", {}).get("error")).__name__ == "BadQuantity"


def _shown(fault: Mapping[str, Any], field: Any) -> str:
    return "its value" if is_secret(field) else f"{fault.get('input')!r:.60}"


def _missing(path: Keys, model: type[BaseModel], sources: Sources) -> str:
    """Return the keys that a table lacks; a pool without queues is most often another, misspelt."""
    field, table = at(model, path), path[:-1]
    words = f"{path[-1]} is missing: write {may_be(field)}" if field else f"{path[-1]} is missing"
    if path[0] == "table" and len(path) == 4:
        meant = closest(str(path[2]), [each for each in _names(table[:-1], sources) if each != path[2]])
        words = f'the pool {path[2]!r} has no queues: name those it takes from, as in queues = ["default"]'
        return f"{words}, or did you mean the pool {meant!r}?" if meant else words
    return words


def _names(path: Keys, sources: Sources) -> Sequence[str]:
    from millpond.tasks.pools import default_pools

    found: Any = sources.values
    for part in path:
        found = found.get(part, {}) if isinstance(found, dict) else {}
    return [*default_pools(), *(found if isinstance(found, dict) else ())]


def _unknown_name(path: Keys, model: type[BaseModel], sources: Sources) -> str:
    """Return the line about a name that does not exist: its place, a similar name, or all valid ones."""
    *table, name = path
    siblings = _siblings(model, table)
    what = "table" if not table and isinstance(sources.values.get(str(name)), dict) else "setting"
    there_is = f"there is no such {what}"
    if not table and name in _names(("table", "pools"), sources):
        return f"{there_is}: write [pools.{name}] for the pool, or [queues.{name}] for the queue"
    if meant := closest(str(name), siblings):
        return f"{there_is}: did you mean {shown_path((*table, meant))}?"
    for home in ("pools", "queues", "smtp", "files", "gateway", "schedule"):
        if str(name) in _names_below(model, home):
            by_name = str(table[-1]) if len(table) > 2 else "NAME"
            inside = f"{home}.{by_name}" if home in (*LIFTED, "schedule") else home
            return f"{there_is} here: did you mean {inside}.{name}?"
    return f"{there_is}; there are: {', '.join(sorted(siblings))}"


def _siblings(model: type[BaseModel], table: Sequence[int | str]) -> list[str]:
    if not table:
        return [*(name for name in model.model_fields if name != "table"), *LIFTED]
    field = at(model, table)
    below = None if field is None else model_of(field.annotation)
    return [] if below is None else list(below.model_fields)


def _names_below(model: type[BaseModel], home: str) -> list[str]:
    """Return the names of settings in a table, or in the tables by name that it holds."""
    field = at(model, LIFTED.get(home, (home,)))
    values = None if field is None else values_of(field.annotation)
    below = model_of(values if values is not None else field.annotation if field else None)
    return [] if below is None else list(below.model_fields)
