"""Find the setting that the name of a variable means, exactly or all but exactly."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from millpond.tasks.configuration.model_fields import LIFTED, is_table, model_of, value_type_of
from millpond.tasks.name_suggestions import closest_name

#: The field's name of a setting -> our name.
_SYNONYMS = {
    "BROKER": "broker_url",
    "REDIS": "broker_url",
    "REDIS_URL": "broker_url",
    "URL": "broker_url",
    "BROKER_URI": "broker_url",
    "CELERY_BROKER_URL": "broker_url",
    "PREFIX": "key_prefix",
    "LOG": "log_format",
    "MAIL_HOST": "smtp.host",
    "CONCURRENCY": "pools.NAME.concurrency",
    "ROOTS": "files.roots",
    "TIMEOUT_SECONDS": "broker_timeout_seconds",
}

#: Variables that are no settings, and are read elsewhere.
_ELSEWHERE = ("CONFIG", "DEBUG", "SCRATCH")

Path = tuple[str, ...]


def variable_name(path: Path) -> str:
    """Return the variable of a path of the model: the shorter name if there are two."""
    shown = path[1:] if path[0] == "table" and len(path) > 1 else path
    return "MILLPOND_" + "__".join(part.upper() for part in shown)


def setting_path(name: str, model: type[BaseModel], known_names: Mapping[str, Any]) -> Path | None:
    """Return the path of the setting that `SMTP__HOST`, a name without its prefix, means.

    Return None if it means no setting.
    """
    parts = name.split("__")
    lifted = LIFTED.get(parts[0].lower())
    path: Path = lifted or ()
    annotation: Any = model
    for part in lifted or ():
        annotation = _type_below(annotation, part)
    for part in parts[1:] if lifted else parts:
        if model_of(annotation) is not None:
            key = part.lower()
        elif value_type_of(annotation) is not None and part:
            names = {each.upper().replace("-", "_"): each for each in _entry_names(path, known_names)}
            key = names.get(part.upper().replace("-", "_"), part.lower())
        else:
            return None
        annotation = _type_below(annotation, key)
        if annotation is None:
            return None
        path = (*path, key)
    return path


def unknown_variable_warning(
    name: str, path: Path | None, model: type[BaseModel], known_names: Mapping[str, Any]
) -> str | None:
    """Return the warning about a variable that sets nothing.

    Return None if it may belong to another program.
    """
    if path is not None:
        return f"is written in capitals: write {variable_name(path)}"
    rest = name[len("MILLPOND_") :].upper().removeprefix("TABLE__").removeprefix("TABLE_")
    if not rest.strip("_"):
        return _unknown_setting_text(None)
    if rest in _SYNONYMS:
        return _unknown_setting_text(_SYNONYMS[rest])
    every = list(_setting_paths(model, (), known_names))
    by_plain = {_normalize_name(".".join(each)): each for each in every}
    if found := by_plain.get(_normalize_name(rest)):
        return _unknown_setting_text(".".join(found))
    plain = _normalize_name(rest)
    prefix = next((each for each in _table_prefixes(model) if plain.startswith(each)), "")
    near = {each[len(prefix) :]: by_plain[each] for each in by_plain if each.startswith(prefix)}
    best = closest_name(plain[len(prefix) :], near if prefix else [*near, *_ELSEWHERE])
    if best is None or len(plain) <= len(prefix) + 2:
        return _unknown_setting_text(None) if "__" in rest else None
    return _unknown_setting_text(".".join(near.get(best, (best,))))


def _unknown_setting_text(suggestion: str | None) -> str:
    """Return the warning that no setting has a variable's name, with the setting that may be meant."""
    if suggestion is None:
        return "is set, and no setting is called so: see millpond config, or unset it"
    return f"is set, and no setting is called so: did you mean {variable_name(tuple(suggestion.split('.')))}?"


def _normalize_name(name: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", name.upper())


def _table_prefixes(model: type[BaseModel]) -> tuple[str, ...]:
    names = [name for name, field in model.model_fields.items() if is_table(field.annotation)]
    return tuple(f"{name.upper()}_" for name in (*names, *LIFTED))


def _entry_names(path: Path, tables: Mapping[str, Any]) -> list[str]:
    """Return the names of a table by name that are known: those of the file, and those that ship."""
    table: Any = tables
    for part in path:
        table = table.get(part) if isinstance(table, dict) else None
    return [str(name) for name in table] if isinstance(table, dict) else []


def _setting_paths(annotation: Any, path: Path, known_names: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the path of every setting as the file spells it, with the known names of tables."""
    below, values = model_of(annotation), value_type_of(annotation)
    if below is not None:
        for name, field in below.model_fields.items():
            inner = path if (name == "table" and not path) else (*path, name)
            yield from _setting_paths(field.annotation, inner, known_names)
    elif values is not None and model_of(values) is not None:
        lifted = LIFTED.get(path[0], path) if path else path
        for name in (*_entry_names(lifted, known_names), "NAME"):
            yield from _setting_paths(values, (*path, name), known_names)
    elif path:
        yield path


def _type_below(annotation: Any, name: str) -> Any:
    """Return the annotation of a table's field, or of the values of a table by name.

    Return None if the table has no such field, or is no table.
    """
    model = model_of(annotation)
    if model is not None:
        field = model.model_fields.get(name)
        return None if field is None else field.annotation
    return value_type_of(annotation)
