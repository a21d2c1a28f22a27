"""Redact secrets: replace the hidden fields of a contract, and cut their values out of texts.

A field declared with `repr=False` is hidden, in a nested model, dataclass or typed dictionary, too. Its value
is replaced wherever arguments are shown, and cut out of errors, tracebacks, results and log lines of its
task. A text is searched for the whole value and for each of its lines, as they are and as Python's `repr` and
JSON escape them. A part of a line, or a value in another encoding, is not found.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict

from millpond.broker.message import BadMessage

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from millpond.broker.message import Message

REDACTED = "[redacted]"

#: The minimum characters of a value that is cut out of texts. Shorter ones are a part of many words.
SHORTEST = 4

#: The minimum characters of a line of a value that is cut out alone, and the most lines of a value.
_SHORTEST_LINE = 12
_MOST_LINES = 200


@lru_cache(maxsize=1_000)
def hides_fields(contract: "type[BaseModel]") -> bool:
    """True if a contract, or a model nested in it, has a hidden field."""
    return any(
        not field.repr for model in nested_models(contract) for field in _fields_of_model(model).values()
    )


def redact(contract: "type[BaseModel]", kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with a note of the length in place of the value of each hidden field, at any depth.

    If the contract hides any field, the values of unknown names are replaced, too: a hidden name may be
    misspelt.
    """
    return _redact_fields([contract], kwargs) if hides_fields(contract) else dict(kwargs)


def _redact_fields(models: "list[type[BaseModel]]", fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object with hidden ones redacted. The object is of one of these models.

    A field is shown only if every model that has a field of its name shows it.
    """
    fields_by_name: dict[str, list[FieldInfo]] = {}
    for model in models:
        for field_name, field in _fields_of_model(model).items():
            for name in _accepted_names(field_name, field):
                fields_by_name.setdefault(name, []).append(field)
    redacted = {}
    for name, field_value in fields.items():
        candidates = fields_by_name.get(name, [])
        if candidates and all(field.repr for field in candidates):
            redacted[name] = _redact_value([field.annotation for field in candidates], field_value)
        else:
            redacted[name] = _redaction_note(field_value)
    return redacted


def _redact_value(annotations: list[Any], value: Any) -> Any:
    """Return a value with hidden fields redacted. It has one of these types, and it is not known which.

    A value that fits none of the types, or that could be a model or a table, is replaced as a whole.
    """
    types = [member for annotation in annotations for member in _member_types(annotation)]
    models_inside = (model for type_ in types for model in models_in_annotation(type_))
    if value is None or not any(map(hides_fields, models_inside)):
        return value
    models = [type_ for type_ in types if _is_model(type_)]
    entry_types = [get_args(type_)[1] for type_ in types if _is_table(type_)]
    if isinstance(value, list | tuple):
        sequences = [type_ for type_ in types if not _is_table(type_)]
        item_types = [item for type_ in sequences for item in get_args(type_) if item is not ...]
        return [_redact_value(item_types, item) for item in value] if item_types else _redaction_note(value)
    if not isinstance(value, dict) or bool(models) == bool(entry_types):
        return _redaction_note(value)
    if models:
        return _redact_fields(models, value)
    return {key: _redact_value(entry_types, entry) for key, entry in value.items()}


def _member_types(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, or else the type itself; without `Annotated`, aliases and root models."""
    annotation = _without_alias(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    root = getattr(annotation, "model_fields", {}).get("root")
    if origin is Annotated:
        yield from _member_types(arguments[0])
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from _member_types(argument)
    elif root is not None and root.repr and getattr(annotation, "__pydantic_root_model__", False):
        yield from _member_types(root.annotation)
    else:
        yield annotation


def _without_alias(annotation: Any) -> Any:
    """Return the type behind a `type` alias, a `NewType` or a bound type variable."""
    for name in ("__value__", "__supertype__", "__bound__"):
        while (aliased := getattr(annotation, name, None)) is not None:
            annotation = aliased
    return annotation


def _is_model(annotation: Any) -> bool:
    """True if the type is a model, a dataclass or a typed dictionary."""
    return isinstance(annotation, type) and (
        hasattr(annotation, "model_fields") or is_dataclass(annotation) or is_typeddict(annotation)
    )


def _is_table(annotation: Any) -> bool:
    """True if the type is a mapping with types for its keys and values."""
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping) and len(get_args(annotation)) == 2


def models_in_annotation(annotation: Any) -> "Iterator[type[BaseModel]]":
    """Yield the models, dataclasses and typed dictionaries that an annotation names, at any depth."""
    annotation = _without_alias(annotation)
    if _is_model(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in_annotation(argument)


@lru_cache(maxsize=1_000)
def _fields_of_model(model: type[Any]) -> "Mapping[str, FieldInfo]":
    """Return pydantic's description of the fields of a model, a dataclass or a typed dictionary, by name."""
    for attribute in ("model_fields", "__pydantic_fields__"):
        if hasattr(model, attribute):
            return dict(getattr(model, attribute))
    from pydantic.fields import FieldInfo

    hidden = {field.name for field in fields(model) if not field.repr} if is_dataclass(model) else set[str]()
    described = {}
    for name, hint in get_type_hints(model, include_extras=True).items():
        described[name] = FieldInfo.from_annotation(hint)
        described[name].repr = described[name].repr and name not in hidden
    return described


@lru_cache(maxsize=1_000)
def nested_models(contract: "type[BaseModel]") -> "frozenset[type[BaseModel]]":
    """Return a contract and all models nested in it, at any depth."""
    models, pending = set["type[BaseModel]"](), [contract]
    while pending:
        model = pending.pop()
        if model not in models:
            models.add(model)
            for field in _fields_of_model(model).values():
                pending.extend(models_in_annotation(field.annotation))
    return frozenset(models)


def redact_args(contract: "type[BaseModel]", args: Any) -> str:
    """Return the `repr` of positional arguments, cut to 1024 characters.

    If the contract hides any field, return a note with their number: an argument may be that of such a field.
    """
    if not args:
        return "()"
    count = f"{len(args)} of them" if isinstance(args, list | tuple) else "of no usable form"
    return f"[redacted: positional arguments, {count}]" if hides_fields(contract) else repr(args)[:1024]


def secrets_in(contract: "type[BaseModel]", args: Any, kwargs: Any) -> tuple[str, ...]:
    """Return the texts in a task's arguments that must not be shown, the longest first.

    A text that is also in a field that is shown is no secret, as an address in the context of a template.
    """
    hidden, shown = set(_all_texts(args)), set[str]()
    if isinstance(kwargs, dict):
        _sort_texts(kwargs, redact(contract, kwargs), hidden, shown)
    else:
        hidden.update(_all_texts(kwargs))
    shown_text = "\n".join(shown)
    secrets = (text for text in hidden if len(text) >= SHORTEST and text not in shown_text)
    return tuple(sorted(secrets, key=len, reverse=True))


def _sort_texts(value: Any, redacted: Any, hidden: set[str], shown: set[str]) -> None:
    """Add each text of a value to `hidden` or `shown`, by comparing the value with its redacted form."""
    if isinstance(value, dict) and isinstance(redacted, dict):
        for name, entry in value.items():
            _sort_texts(entry, redacted[name], hidden, shown)
    elif isinstance(value, list | tuple) and isinstance(redacted, list | tuple):
        for item, redacted_item in zip(value, redacted, strict=True):
            _sort_texts(item, redacted_item, hidden, shown)
    else:
        (shown if redacted is value else hidden).update(_all_texts(value))


def scrub_secrets(text: str, contract: "type[BaseModel] | None", message: "Message") -> str:
    """Return a text without the secrets in the arguments of a message.

    `contract` is that of the message's kind, or None if it has none.
    """
    if contract is None or not hides_fields(contract):
        return text
    try:
        args, kwargs, _embed = message.arguments
    except BadMessage:
        return text
    return replace_secrets(text, secrets_in(contract, args, kwargs))


def replace_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return a text with `REDACTED` in place of each secret, and of each longer line of a secret."""
    for secret in secrets:
        lines = secret.splitlines()[:_MOST_LINES] if "\n" in secret else []
        for part in (secret, *(line.strip() for line in lines if len(line.strip()) >= _SHORTEST_LINE)):
            if len(part) <= len(text):
                for spelling in _secret_spellings(part):
                    text = text.replace(spelling, REDACTED)
    return text


def _secret_spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and as Python, JSON and Celery (which only escapes quotes) write it."""
    yield secret
    if not secret.isalnum() or not secret.isascii():
        escaped, quoted = repr(secret)[1:-1], secret.replace("'", "\\'")
        variants = {escaped, repr(escaped)[1:-1], json.dumps(secret)[1:-1], escaped.replace("'", "\\'")}
        variants |= {quoted, repr(quoted)[1:-1]}
        yield from sorted(variants - {secret}, key=len, reverse=True)


def _all_texts(value: Any) -> Iterator[str]:
    """Yield each text in a value, and each number as text, at any depth. Keys are left out."""
    match value:
        case str():
            yield value
        case int() | float() if not isinstance(value, bool):
            yield str(value)
        case dict():
            for entry in value.values():
                yield from _all_texts(entry)
        case list() | tuple():
            for item in value:
                yield from _all_texts(item)


def _redaction_note(value: Any) -> str:
    """Return the text to show instead of a value, with its length if it has one."""
    size = f", {len(value)} long" if isinstance(value, str | list | dict | tuple) else ""
    return f"[redacted{size}]"


def _accepted_names(name: str, field: "FieldInfo") -> Iterator[str]:
    """Yield the names by which a field may be sent: its own name and its aliases."""
    yield name
    for alias in (field.alias, field.validation_alias):
        if isinstance(alias, str):
            yield alias
        elif alias is not None:
            yield from (choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str))
