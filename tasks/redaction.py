"""Keep secrets out of what is shown: the hidden fields of a contract, and any text that came to hold one.

A field declared with `repr=False` is hidden: its value is replaced wherever arguments are shown, and cut out
of errors, tracebacks, results and log lines of its task. What is found is the value as it was sent, whole, or
a line of it, in plain or as Python's `repr` and JSON escape it; a body that shows half of a secret, or
encodes it, is not stopped.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

REDACTED = "[redacted]"

#: Shorter values are not cut out of texts: they stand in every second word.
SHORTEST = 4
_SHORTEST_LINE = 12
_MOST_LINES = 200


@lru_cache(maxsize=1_000)
def hides(contract: "type[BaseModel]") -> bool:
    """Say whether a contract has hidden fields."""
    return any(not field.repr for field in contract.model_fields.values())


def redact(contract: "type[BaseModel]", kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the values of hidden fields by a note of their length.

    Where a contract hides anything, so is a name that it does not have: it may be a hidden one, misspelt.
    """
    open_ = _open_names(contract)
    if open_ is None:
        return dict(kwargs)
    return {name: value if value is None or name in open_ else _note(value) for name, value in kwargs.items()}


@lru_cache(maxsize=1_000)
def _open_names(contract: "type[BaseModel]") -> frozenset[str] | None:
    """Return the names whose values may be shown; None: any."""
    if not hides(contract):
        return None
    fields = contract.model_fields.items()
    return frozenset(name for own, field in fields if field.repr for name in _names(own, field))


def redact_args(contract: "type[BaseModel]", args: Any) -> str:
    """Return what may be shown of positional arguments, which no contract names."""
    if not args:
        return "()"
    count = f"{len(args)} of them" if isinstance(args, list | tuple) else "of no usable form"
    return f"[redacted: positional arguments, {count}]" if hides(contract) else repr(args)[:1024]


def secrets_in(contract: "type[BaseModel]", args: Any, kwargs: Any) -> tuple[str, ...]:
    """Return the texts that must not be shown of a task, the longest first.

    What stands in an open field as well is shown there, and is none: an address in a template's context.
    """
    hidden, open_ = set(_texts(args)), set[str]()
    if isinstance(kwargs, dict):
        shown = redact(contract, kwargs)
        for name, value in kwargs.items():
            (open_ if shown[name] is value else hidden).update(_texts(value))
    else:
        hidden.update(_texts(kwargs))
    shown_anyway = "\n".join(open_)
    secrets = (text for text in hidden if len(text) >= SHORTEST and text not in shown_anyway)
    return tuple(sorted(secrets, key=len, reverse=True))


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """Cut secrets out of a text."""
    for secret in secrets:
        lines = secret.splitlines()[:_MOST_LINES] if "\n" in secret else []
        for part in (secret, *(line.strip() for line in lines if len(line.strip()) >= _SHORTEST_LINE)):
            if len(part) <= len(text):
                for spelling in _spellings(part):
                    text = text.replace(spelling, REDACTED)
    return text


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and as Python, JSON and Celery (which escapes quotes alone) write it."""
    yield secret
    if not secret.isalnum() or not secret.isascii():
        once, quoted = repr(secret)[1:-1], secret.replace("'", "\\'")
        variants = {once, repr(once)[1:-1], json.dumps(secret)[1:-1], once.replace("'", "\\'")}
        variants |= {quoted, repr(quoted)[1:-1]}
        yield from sorted(variants - {secret}, key=len, reverse=True)


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case int() | float() if not isinstance(value, bool):
            yield str(value)
        case dict():
            for each in value.values():
                yield from _texts(each)
        case list() | tuple():
            for each in value:
                yield from _texts(each)


def _note(value: Any) -> str:
    size = f", {len(value)} long" if isinstance(value, str | list | dict | tuple) else ""
    return f"[redacted{size}]"


def _names(name: str, field: "FieldInfo") -> Iterator[str]:
    yield name
    for alias in (field.alias, field.validation_alias):
        if isinstance(alias, str):
            yield alias
        elif alias is not None:
            yield from (choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str))
