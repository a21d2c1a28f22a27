"""Redaction of secrets: the hidden fields of a contract, and their values in any text that is shown.

A field declared with `repr=False` is hidden, in a nested model, dataclass or typed dictionary too: its value
is replaced wherever arguments are shown, and cut out of errors, tracebacks, results and log lines of its
task. The value is found as it was sent, whole, or a line of it, in plain or as Python's `repr` and JSON
escape it. A handler that shows half of a secret, or encodes it, is not stopped.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

REDACTED = "[redacted]"

#: Shorter values are not cut out of texts: every second word contains them.
SHORTEST = 4
_SHORTEST_LINE = 12
_MOST_LINES = 200


@lru_cache(maxsize=1_000)
def hides_fields(contract: "type[BaseModel]") -> bool:
    """True if a contract has hidden fields, in a nested model too."""
    return any(
        not field.repr for model in nested_models(contract) for field in _described_fields(model).values()
    )


def redact(contract: "type[BaseModel]", kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the values of hidden fields, also of nested models, by a note of their length.

    If a contract hides any field, unknown names are hidden too: one may be a hidden name, misspelt.
    """
    return _redact_fields([contract], kwargs) if hides_fields(contract) else dict(kwargs)


def _redact_fields(models: "list[type[BaseModel]]", value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of one of these models as they may be shown. Any model may hide a field."""
    by_name: dict[str, list[FieldInfo]] = {}
    for model in models:
        for own, field in _described_fields(model).items():
            for name in _field_names(own, field):
                by_name.setdefault(name, []).append(field)
    shown = {}
    for name, each in value.items():
        fields = by_name.get(name, [])
        is_open = bool(fields) and all(field.repr for field in fields)
        shown[name] = (
            _redact_value([field.annotation for field in fields], each) if is_open else _redaction_note(each)
        )
    return shown


def _redact_value(annotations: list[Any], value: Any) -> Any:
    """Return a value as it may be shown. Its type is one of these, and all of them are followed."""
    types = [member for each in annotations for member in _member_types(each)]
    if value is None or not any(
        hides_fields(model) for each in types for model in models_in_annotation(each)
    ):
        return value
    models = [each for each in types if _is_model(each)]
    tables = [get_args(each) for each in types if _is_table(each)]
    if isinstance(value, list | tuple):
        items = [item for each in types if not _is_table(each) for item in get_args(each) if item is not ...]
        return [_redact_value(items, each) for each in value] if items else _redaction_note(value)
    if not isinstance(value, dict) or bool(models) == bool(tables):
        return _redaction_note(value)
    if models:
        return _redact_fields(models, value)
    return {key: _redact_value([each for _key, each in tables], of_key) for key, of_key in value.items()}


def _member_types(annotation: Any) -> Iterator[Any]:
    """Yield the types that a value of this annotation may have, without aliases and annotations."""
    annotation = _without_alias(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    root = getattr(annotation, "model_fields", {}).get("root")
    if origin is Annotated:
        yield from _member_types(arguments[0])
    elif origin in (Union, UnionType):
        for each in arguments:
            yield from _member_types(each)
    elif root is not None and root.repr and getattr(annotation, "__pydantic_root_model__", False):
        yield from _member_types(root.annotation)
    else:
        yield annotation


def _without_alias(annotation: Any) -> Any:
    """Return the type behind a `type` alias, a `NewType` or a bound type variable."""
    for name in ("__value__", "__supertype__", "__bound__"):
        while (meant := getattr(annotation, name, None)) is not None:
            annotation = meant
    return annotation


def _is_model(annotation: Any) -> bool:
    """True if the type is a model, a dataclass or a typed dictionary."""
    return isinstance(annotation, type) and (
        hasattr(annotation, "model_fields") or is_dataclass(annotation) or is_typeddict(annotation)
    )


def _is_table(annotation: Any) -> bool:
    """True if the type has keys and values."""
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping) and len(get_args(annotation)) == 2


def models_in_annotation(annotation: Any) -> "Iterator[type[BaseModel]]":
    """Yield the models, dataclasses and typed dictionaries in an annotation."""
    annotation = _without_alias(annotation)
    if _is_model(annotation):
        yield annotation
    for each in get_args(annotation):
        yield from models_in_annotation(each)


@lru_cache(maxsize=1_000)
def _described_fields(model: type[Any]) -> "Mapping[str, FieldInfo]":
    """Return the fields of a model, of a dataclass or of a typed dictionary, as pydantic describes them."""
    for own in ("model_fields", "__pydantic_fields__"):
        if hasattr(model, own):
            return dict(getattr(model, own))
    from pydantic.fields import FieldInfo

    hidden = {each.name for each in fields(model) if not each.repr} if is_dataclass(model) else set[str]()
    fields_by_name = {}
    for name, hint in get_type_hints(model, include_extras=True).items():
        fields_by_name[name] = FieldInfo.from_annotation(hint)
        fields_by_name[name].repr = fields_by_name[name].repr and name not in hidden
    return fields_by_name


@lru_cache(maxsize=1_000)
def nested_models(contract: "type[BaseModel]") -> "frozenset[type[BaseModel]]":
    """Return a contract and all models nested in it."""
    models, waiting = set["type[BaseModel]"](), [contract]
    while waiting:
        model = waiting.pop()
        if model not in models:
            models.add(model)
            waiting.extend(
                nested
                for each in _described_fields(model).values()
                for nested in models_in_annotation(each.annotation)
            )
    return frozenset(models)


def redact_args(contract: "type[BaseModel]", args: Any) -> str:
    """Return the text to show for positional arguments, which no contract names."""
    if not args:
        return "()"
    count = f"{len(args)} of them" if isinstance(args, list | tuple) else "of no usable form"
    return f"[redacted: positional arguments, {count}]" if hides_fields(contract) else repr(args)[:1024]


def secrets_in(contract: "type[BaseModel]", args: Any, kwargs: Any) -> tuple[str, ...]:
    """Return the texts that must not be shown of a task, the longest first.

    A text that is also in an open field is no secret: an address in a template's context.
    """
    hidden, open_ = set(_all_texts(args)), set[str]()
    if isinstance(kwargs, dict):
        _sort_texts(kwargs, redact(contract, kwargs), hidden, open_)
    else:
        hidden.update(_all_texts(kwargs))
    shown_anyway = "\n".join(open_)
    secrets = (text for text in hidden if len(text) >= SHORTEST and text not in shown_anyway)
    return tuple(sorted(secrets, key=len, reverse=True))


def _sort_texts(value: Any, shown: Any, hidden: set[str], open_: set[str]) -> None:
    """Sort the texts of a value into hidden ones and those that are shown."""
    if isinstance(value, dict) and isinstance(shown, dict):
        for name, each in value.items():
            _sort_texts(each, shown[name], hidden, open_)
    elif isinstance(value, list | tuple) and isinstance(shown, list | tuple):
        for each, beside in zip(value, shown, strict=True):
            _sort_texts(each, beside, hidden, open_)
    else:
        (open_ if shown is value else hidden).update(_all_texts(value))


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Cut secrets out of a text."""
    for secret in secrets:
        lines = secret.splitlines()[:_MOST_LINES] if "\n" in secret else []
        for part in (secret, *(line.strip() for line in lines if len(line.strip()) >= _SHORTEST_LINE)):
            if len(part) <= len(text):
                for spelling in _secret_spellings(part):
                    text = text.replace(spelling, REDACTED)
    return text


def _secret_spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and as Python, JSON and Celery (which escapes quotes alone) write it."""
    yield secret
    if not secret.isalnum() or not secret.isascii():
        once, quoted = repr(secret)[1:-1], secret.replace("'", "\\'")
        variants = {once, repr(once)[1:-1], json.dumps(secret)[1:-1], once.replace("'", "\\'")}
        variants |= {quoted, repr(quoted)[1:-1]}
        yield from sorted(variants - {secret}, key=len, reverse=True)


def _all_texts(value: Any) -> Iterator[str]:
    """Yield each text and number in a value, at any depth, as text."""
    match value:
        case str():
            yield value
        case int() | float() if not isinstance(value, bool):
            yield str(value)
        case dict():
            for each in value.values():
                yield from _all_texts(each)
        case list() | tuple():
            for each in value:
                yield from _all_texts(each)


def _redaction_note(value: Any) -> str:
    size = f", {len(value)} long" if isinstance(value, str | list | dict | tuple) else ""
    return f"[redacted{size}]"


def _field_names(name: str, field: "FieldInfo") -> Iterator[str]:
    """Yield the names by which a field may be sent: its own and its aliases."""
    yield name
    for alias in (field.alias, field.validation_alias):
        if isinstance(alias, str):
            yield alias
        elif alias is not None:
            yield from (choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str))
