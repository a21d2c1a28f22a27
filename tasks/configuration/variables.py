"""Read the variables MILLPOND_…: each name is a path of the model, each value is as a person writes it."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr

from millpond.tasks.configuration.model_fields import LIFTED, at, bare, is_list, is_secret, is_table, may_be
from millpond.tasks.configuration.variable_names import meant, resolve, variable

PREFIX = "MILLPOND_"

#: Read elsewhere: where the file is, tracebacks, the folder for short-lived files.
OTHERS = ("MILLPOND_CONFIG", "MILLPOND_DEBUG", "MILLPOND_SCRATCH")

#: Variables that Kubernetes sets in every container for a Service named millpond…
_SERVICE_LINK = re.compile(r"MILLPOND(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)")


class Read(NamedTuple):
    """The variables as read: nested values, the variable of each path, faults, unread names."""

    values: dict[str, Any]
    names: dict[tuple[str, ...], str]
    faults: list[str]
    unused: list[str]


def read(environ: Mapping[str, str], model: type[BaseModel], known: Mapping[str, Any]) -> Read:
    """Read all variables of Millpond; `known` has the names of the file's pools, queues and schedules.

    Shorter names come first, so that MILLPOND_SMTP__HOST replaces one field of MILLPOND_SMTP.
    """
    found = Read({}, {}, [], [])
    ours = [name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in OTHERS]
    for name in sorted(ours, key=lambda each: (each.count("__"), each)):
        if _SERVICE_LINK.fullmatch(name) and _is_of_kubernetes(name, environ[name]):
            continue
        path = resolve(name[len(PREFIX) :], model, known)
        if path is None or name != name.upper():
            said = meant(name, path, model, known)
            found.unused.append(name) if said is None else found.faults.append(f"{name} {said}")
            continue
        try:
            value = _parsed(environ[name], model, path)
        except ValueError as error:
            found.faults.append(f"{name} {error}")
            continue
        _put(found.values, path, value)
        found.names.update(dict.fromkeys([path, *_leaves(value, path)], name))
    return found


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value in a table."""
    if not isinstance(value, dict):
        yield path
        return
    for name, each in value.items():
        yield from _leaves(each, (*path, str(name)))


def _is_of_kubernetes(name: str, value: str) -> bool:
    return not name.endswith("_PORT") or "://" in value


def _parsed(text: str, model: type[BaseModel], path: tuple[str, ...]) -> Any:
    """Return the value of a variable, as far as its text goes. Raises `ValueError` with the remedy."""
    field = at(model, path)
    assert field is not None
    kind, secret = field.annotation, is_secret(field)
    if not text.strip():
        if is_list(kind) or field.default == "":
            return () if is_list(kind) else ""
        raise ValueError(f"is empty: write {may_be(field)}, or unset it")
    if bare(kind) is not SecretStr and re.fullmatch(r"\s*(\"[^\"]*\"|'[^']*')\s*", text):
        raise ValueError(
            "is written in quotes, which a shell takes off and nothing else does: leave them out"
        )
    if is_table(kind):
        return _table(text, variable(path), secret=secret)
    if is_list(kind) and text.lstrip().startswith(("[", "{")):
        return _structure(text, secret=secret, example=may_be(field))
    return text if bare(kind) is SecretStr else text.strip()


def _table(text: str, name: str, *, secret: bool) -> Any:
    """Read a table as JSON, as TOML, or as `host=mail,port=587`."""
    example = f"{name}__NAME=value, or name=value,name=value, or JSON"
    if text.lstrip().startswith(("{", "[")):
        return _structure(text, secret=secret, example=example)
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError(
                f"is {'no table' if secret else f'{text!r:.60}, which is no table'}: write {example}"
            )
        _put(found, tuple(key.strip().split(".")), value.strip())
    return found


def _structure(text: str, *, secret: bool, example: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        shown = "its value" if secret else f"{text!r:.60}"
        raise ValueError(f"cannot be read: {shown} is neither JSON nor TOML. Write {example}") from None


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set the value at its path; a table is merged into the one that is there."""
    *tables, last = path
    for part in tables:
        below = values.get(part)
        values[part] = values = dict(below) if isinstance(below, dict) else {}
    values[last] = value


__all__ = ["LIFTED", "OTHERS", "PREFIX", "Read", "read"]
