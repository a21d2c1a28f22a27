"""Find the setting that an environment variable sets, or that a misspelt one was probably meant to set."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from millpond.tasks.configuration.model_fields import (
    LIFTED,
    field_at,
    model_of,
    path_in_file,
    table_names,
    value_type_of,
)
from millpond.tasks.name_suggestions import closest_name

#: Names that other programs have for a setting -> its name here.
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

#: Variables that are no settings: the path of the file, tracebacks, the folder for short-lived files.
NO_SETTINGS = ("CONFIG", "DEBUG", "SCRATCH")

#: The path of a setting in the model.
SettingPath = tuple[str, ...]


def variable_name(path: SettingPath) -> str:
    """Return the variable of a setting: `MILLPOND_POOLS__EMAIL__CONCURRENCY`."""
    return "MILLPOND_" + "__".join(map(_fold_name, path_in_file(path)))


def setting_path(name: str, model: type[BaseModel], known_names: Mapping[str, Any]) -> SettingPath | None:
    """Return the path of the setting that a variable sets. `name` is without `MILLPOND_`: `SMTP__HOST`.

    Return None if there is no such setting.
    """
    first, *others = name.split("__")
    path: SettingPath = ()
    annotation: Any = model
    for part in (*LIFTED.get(first.lower(), (first,)), *others):
        if model_of(annotation) is not None:
            key = part.lower()
        elif value_type_of(annotation) is not None and part:
            known = entry_names(path, known_names)
            folded = {_fold_name(name): name for name in known}
            exact = {name.upper(): name for name in known}
            key = exact.get(part.upper()) or folded.get(_fold_name(part), part.lower())
        else:
            return None
        path = (*path, key)
        field = field_at(model, path)
        if field is None:
            return None
        annotation = field.annotation
    return path


def _fold_name(name: str) -> str:
    """Return a name as variables have it: in capitals, with `_` for the `-` and `.` that no shell exports."""
    return re.sub("[-.]", "_", name.upper())


def unknown_variable_warning(
    name: str, path: SettingPath | None, model: type[BaseModel], known_names: Mapping[str, Any]
) -> str | None:
    """Return the warning about a variable that sets nothing, with the variable that was probably meant.

    `path` is that of the setting if only the capitals are wrong. Return None if the variable may belong to
    another program.
    """
    if path is not None:
        return f"is written in capitals: write {variable_name(path)}"
    setting = name[len("MILLPOND_") :].upper().removeprefix("TABLE__").removeprefix("TABLE_")
    if not setting.strip("_"):
        return _unknown_setting_text(None)
    if setting in _SYNONYMS:
        return _unknown_setting_text(tuple(_SYNONYMS[setting].split(".")))
    paths = {_normalize_name(".".join(path)): path for path in _setting_paths(model, (), known_names)}
    normalized = _normalize_name(setting)
    if normalized in paths:
        return _unknown_setting_text(paths[normalized])
    prefixes = (f"{name.upper()}_" for name in table_names(model))
    table = next((prefix for prefix in prefixes if normalized.startswith(prefix)), "")
    in_table = {key[len(table) :]: path for key, path in paths.items() if key.startswith(table)}
    similar = closest_name(normalized[len(table) :], in_table if table else [*in_table, *NO_SETTINGS])
    if similar is None or len(normalized) <= len(table) + 2:
        return _unknown_setting_text(None) if "__" in setting else None
    return _unknown_setting_text(in_table.get(similar, (similar,)))


def _unknown_setting_text(suggestion: SettingPath | None) -> str:
    """Return the warning that no setting has this name, as it follows the variable's name in a line.

    `suggestion` is the path of the setting that may be meant (`smtp`, `host`), or None.
    """
    if suggestion is None:
        return "is set, and no setting is called so: see millpond config, or unset it"
    return f"is set, and no setting is called so: did you mean {variable_name(suggestion)}?"


def _normalize_name(name: str) -> str:
    """Return a name in capitals, with one underscore for all characters between two words."""
    return re.sub(r"[^A-Z0-9]+", "_", name.upper())


def entry_names(path: SettingPath, values: Mapping[str, Any]) -> list[str]:
    """Return the names in the table at a path of nested values; none if there is no table."""
    table: Any = values
    for part in path:
        table = table.get(part) if isinstance(table, dict) else None
    return [str(name) for name in table] if isinstance(table, dict) else []


def _setting_paths(
    annotation: Any, path: SettingPath, known_names: Mapping[str, Any]
) -> Iterator[SettingPath]:
    """Yield the path of every setting as the file spells it. `NAME` stands for further names of tables."""
    model, entry_type = model_of(annotation), value_type_of(annotation)
    if model is not None:
        for name, field in model.model_fields.items():
            field_path = path if (name == "table" and not path) else (*path, name)
            yield from _setting_paths(field.annotation, field_path, known_names)
    elif model_of(entry_type) is not None:
        model_path = LIFTED.get(path[0], path) if path else path
        for name in (*entry_names(model_path, known_names), "NAME"):
            yield from _setting_paths(entry_type, (*path, name), known_names)
    elif path:
        yield path
