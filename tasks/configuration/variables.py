"""Read the variables MILLPOND_…: each name is a path of the model, each value is as a person writes it."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr

from millpond.tasks.configuration.model_fields import (
    LIFTED,
    describe_values,
    field_at,
    is_list,
    is_secret,
    is_table,
    strip_annotated,
)
from millpond.tasks.configuration.variable_names import setting_path, unknown_variable_warning, variable_name

PREFIX = "MILLPOND_"

#: Variables that other modules read: the place of the file, tracebacks, the folder for short-lived files.
OTHERS = ("MILLPOND_CONFIG", "MILLPOND_DEBUG", "MILLPOND_SCRATCH")

#: Variables that Kubernetes sets in every container for a Service named millpond…
_SERVICE_LINK = re.compile(r"MILLPOND(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)")


class VariablesRead(NamedTuple):
    """The variables as read: nested values, the variable of each path, faults, unread names."""

    values: dict[str, Any]
    names: dict[tuple[str, ...], str]
    faults: list[str]
    unused: list[str]


def read_variables(
    environ: Mapping[str, str], model: type[BaseModel], known_names: Mapping[str, Any]
) -> VariablesRead:
    """Read all variables of Millpond. `known_names` has the names of the file's pools, queues and schedules.

    Shorter names come first, so that MILLPOND_SMTP__HOST replaces one field of MILLPOND_SMTP.
    """
    result = VariablesRead({}, {}, [], [])
    ours = [name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in OTHERS]
    for name in sorted(ours, key=lambda each: (each.count("__"), each)):
        if _SERVICE_LINK.fullmatch(name) and _is_own_variable(name, environ[name]):
            continue
        path = setting_path(name[len(PREFIX) :], model, known_names)
        if path is None or name != name.upper():
            said = unknown_variable_warning(name, path, model, known_names)
            result.unused.append(name) if said is None else result.faults.append(f"{name} {said}")
            continue
        try:
            value = _parse_value(environ[name], model, path)
        except ValueError as error:
            result.faults.append(f"{name} {error}")
            continue
        _set_at_path(result.values, path, value)
        result.names.update(dict.fromkeys([path, *_leaf_paths(value, path)], name))
    return result


def _leaf_paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value in a table."""
    if not isinstance(value, dict):
        yield path
        return
    for name, each in value.items():
        yield from _leaf_paths(each, (*path, str(name)))


def _is_own_variable(name: str, value: str) -> bool:
    """True unless Kubernetes set the variable for a service, as `MILLPOND_PORT=tcp://…`."""
    return not name.endswith("_PORT") or "://" in value


def _parse_value(text: str, model: type[BaseModel], path: tuple[str, ...]) -> Any:
    """Return the value of a variable in its field's type. Raises `ValueError` with the remedy."""
    field = field_at(model, path)
    assert field is not None
    annotation, secret = field.annotation, is_secret(field)
    if not text.strip():
        if is_list(annotation) or field.default == "":
            return () if is_list(annotation) else ""
        raise ValueError(f"is empty: write {describe_values(field)}, or unset it")
    if strip_annotated(annotation) is not SecretStr and re.fullmatch(r"\s*(\"[^\"]*\"|'[^']*')\s*", text):
        raise ValueError(
            "is written in quotes, which a shell takes off and nothing else does: leave them out"
        )
    if is_table(annotation):
        return _parse_table(text, variable_name(path), secret=secret)
    if is_list(annotation) and text.lstrip().startswith(("[", "{")):
        return _parse_structure(text, secret=secret, example=describe_values(field))
    return text if strip_annotated(annotation) is SecretStr else text.strip()


def _parse_table(text: str, name: str, *, secret: bool) -> Any:
    """Read a table as JSON, as TOML, or as `host=mail,port=587`."""
    example = f"{name}__NAME=value, or name=value,name=value, or JSON"
    if text.lstrip().startswith(("{", "[")):
        return _parse_structure(text, secret=secret, example=example)
    table: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError(
                f"is {'no table' if secret else f'{text!r:.60}, which is no table'}: write {example}"
            )
        _set_at_path(table, tuple(key.strip().split(".")), value.strip())
    return table


def _parse_structure(text: str, *, secret: bool, example: str) -> Any:
    """Return a list or table written as JSON or TOML. Raises `ValueError` with an example."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        shown = "its value" if secret else f"{text!r:.60}"
        raise ValueError(f"cannot be read: {shown} is neither JSON nor TOML. Write {example}") from None


def _set_at_path(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set the value at its path. A table is merged into the table that is there."""
    *tables, last = path
    for part in tables:
        below = values.get(part)
        values[part] = values = dict(below) if isinstance(below, dict) else {}
    values[last] = value


__all__ = ["LIFTED", "OTHERS", "PREFIX", "VariablesRead", "read_variables"]
