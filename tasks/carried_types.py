"""The types that a contract may have: types whose values come out of JSON as they went in."""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from re import Pattern
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, EncodedBytes, PlainSerializer, SecretBytes, SecretStr, WrapSerializer
from pydantic.fields import FieldInfo
from pydantic.types import Json, Secret
from typing_extensions import is_typeddict

#: How JSON writes a type; types that are not here are written as text.
_JSON_FORMS: dict[type, str] = {
    **dict.fromkeys((int, float), "number"),
    bool: "boolean",
    type(None): "null",
    **dict.fromkeys((list, tuple, set, frozenset), "array"),
    dict: "object",
}


#: Pydantic's marker, which has another type for type checkers.
_JSON_MARKER: Any = Json


#: Types with keys, which JSON writes as text.
_TABLES = (dict, defaultdict, Mapping)
#: Types that lose something on their way, and the remedy.
_REMEDIES: dict[Any, str] = {
    **dict.fromkeys((Iterable, Iterator, Generator), "is read once: write list"),
    Pattern: "is sent without its flags: write str",
    **dict.fromkeys((Callable, type), "JSON has not: send a name"),
}


def unsupported_fields(model: type[BaseModel]) -> Iterator[str]:
    """Yield a line for each field whose value would change or get lost between client and worker."""
    yield from _model_faults(model, "", set())


def _model_faults(model: type[BaseModel], place: str, models: set[type]) -> Iterator[str]:
    """Yield a line for each fault of a model and its nested models. `seen` has the models checked before."""
    if model in models:
        return
    models.add(model)
    for name in model.__private_attributes__:
        yield f"{place}{name} is private and is not sent: make it a field, or a property"
    for name in model.model_computed_fields:
        yield f"{place}{name} is a computed field, which the worker would refuse: make it a property"
    serializers = model.__pydantic_decorators__
    if serializers.model_serializers or serializers.field_serializers:
        yield f"{place or model.__name__} has a serializer of its own: send what JSON can write as it is"
    for name, field in model.model_fields.items():
        yield from _field_faults(model, f"{place}{name}", name, field)
        encoded = any(isinstance(each, EncodedBytes) for each in field.metadata) or _writes_bytes_as_text(
            model
        )
        metadata = [each for each in field.metadata if not (encoded and isinstance(each, EncodedBytes))]
        tagged = field.discriminator is not None
        for each in metadata:
            yield from _metadata_faults(each, f"{place}{name}")
        yield from _type_faults(field.annotation, f"{place}{name}", models, encoded=encoded, tagged=tagged)


def _field_faults(model: type[BaseModel], place: str, name: str, field: FieldInfo) -> Iterator[str]:
    """Yield a line for each option of a field that keeps it from arriving under its own name."""
    if field.exclude:
        yield f"{place} is excluded and is not sent: leave out exclude=True"
    config = model.model_config
    accepted = {name} if config.get("populate_by_name") or config.get("validate_by_name") else set[str]()
    alias = field.validation_alias
    accepted |= {name} if alias is None else {alias} if isinstance(alias, str) else set()
    accepted |= {each for each in getattr(alias, "choices", ()) if isinstance(each, str)}
    sent = (field.serialization_alias or name) if config.get("serialize_by_alias") else name
    if sent not in accepted:
        yield (
            f"{place} is sent as {sent!r} and accepted as {', '.join(sorted(accepted)) or 'something else'}: "
            f"write validation_alias=AliasChoices({sent!r}, …)"
        )


def _metadata_faults(each: Any, place: str) -> Iterator[str]:
    """Yield a line if an annotation of a field changes how its value is written."""
    if isinstance(each, PlainSerializer | WrapSerializer):
        yield f"{place} has a serializer of its own: send a type that JSON can write as it is"
    if isinstance(each, FieldInfo) and not each.repr:
        yield f"{place} hides a part of its value: write Field(repr=False) for the whole of it"
    if each is _JSON_MARKER or isinstance(each, _JSON_MARKER):
        yield f"{place} is Json, which is read twice: write the type that is in it"


def _type_faults(
    annotation: Any, place: str, models: set[type], *, encoded: bool, tagged: bool
) -> Iterator[str]:
    """Yield a line for each part of a type that JSON cannot carry unchanged."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is _JSON_MARKER:
        yield from _metadata_faults(annotation, place)
        return
    if origin is Annotated:
        for each in arguments[1:]:
            yield from _metadata_faults(each, place)
        encoded = encoded or any(isinstance(each, EncodedBytes) for each in arguments[1:])
        tagged = tagged or any(getattr(each, "discriminator", None) for each in arguments[1:])
        arguments = arguments[:1]
    elif origin in (Union, UnionType) and not tagged and (pair := _find_confusable_members(arguments)):
        yield f"{place} may come out as another type, {pair}: choose one, or give models a discriminator"
    elif origin is Literal:
        arguments = tuple(type(each) for each in arguments if isinstance(each, bytes))
    elif origin in _TABLES and arguments and (kind := _unreadable_key(arguments[0])):
        yield f"{place} has keys of {kind}, which arrive as text: choose text or a number, or send pairs"
    if isinstance(annotation, type) and origin is None:
        if issubclass(annotation, SecretStr | SecretBytes) or _is_secret(annotation):
            yield f"{place} is {annotation.__name__}, which is sent as stars: write str and Field(repr=False)"
        elif issubclass(annotation, bytes | bytearray) and not encoded:
            yield f"{place} is bytes, which JSON has not: write Base64Bytes"
        elif issubclass(annotation, BaseModel):
            yield from _model_faults(annotation, f"{place}.", models)
        elif is_dataclass(annotation) or is_typeddict(annotation) or hasattr(annotation, "_fields"):
            yield from _class_faults(annotation, place, models)
        elif annotation in _REMEDIES:
            yield f"{place} is {annotation.__name__}, which {_REMEDIES[annotation]}"
    elif origin in _REMEDIES:
        yield f"{place} is {origin.__name__}, which {_REMEDIES[origin]}"
        return
    elif _is_secret(origin):
        yield f"{place} is Secret, which is sent as stars: write the type in it and Field(repr=False)"
        return
    for each in arguments:
        yield from _type_faults(each, place, models, encoded=encoded, tagged=False)


def _class_faults(class_: type, place: str, models: set[type]) -> Iterator[str]:
    """Yield a line for each fault of a dataclass, a typed dictionary or a named tuple."""
    if class_ in models:
        return
    models.add(class_)
    for name, hint in get_type_hints(class_, include_extras=True).items():
        # A field of these may be hidden, but for one of a tuple, which is sent without its name.
        named = get_origin(hint) is Annotated and not issubclass(class_, tuple)
        encoded = any(isinstance(each, EncodedBytes) for each in get_args(hint))
        annotation = get_args(hint)[0] if named else hint
        yield from _type_faults(annotation, f"{place}.{name}", models, encoded=encoded, tagged=False)


def _is_secret(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Secret)


def _writes_bytes_as_text(model: type[BaseModel]) -> bool:
    """True if a model writes and reads bytes as base64 or hexadecimal text."""
    writes, reads = model.model_config.get("ser_json_bytes"), model.model_config.get("val_json_bytes")
    return writes == reads and writes in ("base64", "hex")


def _find_confusable_members(members: tuple[Any, ...]) -> str:
    """Return two members of a union that JSON writes alike, as words. The text is empty if there are none."""
    first: dict[str, type] = {}
    for each in members:
        for form, kind in _json_forms(each):
            first_kind = first.setdefault(form, kind)
            if first_kind is not kind and {first_kind, kind} != {int, float}:
                return f"{first_kind.__name__} or {kind.__name__}"
    return ""


def _json_forms(member: Any) -> Iterator[tuple[str, type]]:
    """Yield the JSON form of each value of a union's member, with its Python type."""
    origin, arguments = get_origin(member), get_args(member)
    if origin is Annotated:
        yield from _json_forms(arguments[0])
    elif origin in (Union, UnionType):
        for each in arguments:
            yield from _json_forms(each)
    elif origin is Literal:
        for each in arguments:
            yield ("text" if isinstance(each, Enum) else _JSON_FORMS.get(type(each), "text")), type(each)
    elif isinstance(origin or member, type):
        kind = origin or member
        yield ("object" if issubclass(kind, BaseModel) else _JSON_FORMS.get(kind, "text")), kind


def _unreadable_key(key: Any) -> str:
    """Return the name of a key's type that does not come back from text. The name is empty if it does."""
    origin, arguments = get_origin(key), get_args(key)
    if origin is Annotated:
        return _unreadable_key(arguments[0])
    if origin in (Literal, Union, UnionType):
        return "" if all(isinstance(each, str) for each in arguments) else "more than one type"
    if origin is not None:
        return str(origin.__name__)
    if not isinstance(key, type):
        return ""
    if issubclass(key, Enum):
        return "" if all(isinstance(each.value, str) for each in key) else key.__name__
    return key.__name__ if issubclass(key, BaseModel | tuple) else ""
