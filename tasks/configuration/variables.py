"""Read the environment variables `MILLPOND_…`: each sets the setting at the path that its name means."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr

from millpond.tasks.configuration.model_fields import (
    describe_values,
    field_at,
    is_list,
    is_secret,
    is_table,
    strip_annotated,
)
from millpond.tasks.configuration.variable_names import (
    NO_SETTINGS,
    setting_path,
    unknown_variable_warning,
    variable_name,
)
from millpond.tasks.field_types import parse_json_or_toml

PREFIX = "MILLPOND_"

#: Python has a surrogate for each byte of a variable that is not UTF-8.
_NOT_UTF8 = re.compile("[\ud800-\udfff]")

#: The names of variables that Kubernetes sets in every container for a Service named millpond…
_SERVICE_LINK = re.compile(r"MILLPOND(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)")


class VariablesRead(NamedTuple):
    """The values, nested as in the model; the variable of each path; faults; unused variables."""

    values: dict[str, Any]
    names: dict[tuple[str, ...], str]
    faults: list[str]
    unused: list[str]


def read_variables(
    environ: Mapping[str, str], model: type[BaseModel], known_names: Mapping[str, Any]
) -> VariablesRead:
    """Read all variables of Millpond. `known_names` has the names of pools, queues and schedules.

    Tables are read before their fields, so that MILLPOND_SMTP__HOST replaces one field of MILLPOND_SMTP.
    """
    result = VariablesRead({}, {}, [], [])
    excluded = tuple(PREFIX + name for name in NO_SETTINGS)
    names = [name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in excluded]
    for name in sorted(names, key=lambda name: (name.count("__"), name)):
        if _is_service_link(name, environ[name]):
            continue
        path = setting_path(name[len(PREFIX) :], model, known_names)
        if path is None or name != name.upper():
            warning = unknown_variable_warning(name, path, model, known_names)
            result.unused.append(name) if warning is None else result.faults.append(f"{name} {warning}")
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
    """Yield the path of every value in a nested table; of a plain value its own path."""
    if not isinstance(value, dict):
        yield path
        return
    for key, entry in value.items():
        yield from _leaf_paths(entry, (*path, str(key)))


def _is_service_link(name: str, value: str) -> bool:
    """True if Kubernetes set the variable for a Service, as `MILLPOND_PORT=tcp://…`.

    A variable of that form with a plain number, as `MILLPOND_HEALTH_PORT=8080`, is a setting.
    """
    return _SERVICE_LINK.fullmatch(name) is not None and (not name.endswith("_PORT") or "://" in value)


def _parse_value(text: str, model: type[BaseModel], path: tuple[str, ...]) -> Any:
    """Return the value of a variable: a table or a list of its parts, or else its text.

    Pydantic converts other types later. Raises `ValueError` with the remedy.
    """
    field = field_at(model, path)
    assert field is not None
    annotation, secret = field.annotation, is_secret(field)
    if _NOT_UTF8.search(text):
        raise ValueError("is not UTF-8: write it in UTF-8")
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


def _parse_table(text: str, variable: str, *, secret: bool) -> Any:
    """Return a table that is written as JSON, as TOML, or as `host=mail,port=587`. Raises `ValueError`."""
    example = f"{variable}__NAME=value, or name=value,name=value, or JSON"
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
    """Return a list or table that is written as JSON or TOML. Raises `ValueError` with an example."""
    try:
        return parse_json_or_toml(text)
    except ValueError:
        shown = "its value" if secret else f"{text!r:.60}"
        raise ValueError(f"cannot be read: {shown} is neither JSON nor TOML. Write {example}") from None


def _set_at_path(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set the value at its path, in nested tables that are made where they are missing."""
    *tables, last = path
    for part in tables:
        table = values.get(part)
        values[part] = values = dict(table) if isinstance(table, dict) else {}
    values[last] = value
