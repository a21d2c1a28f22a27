"""Find the fields of a contract whose values JSON would change between client and worker."""

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

#: The JSON type of a Python type. All other types are written as text.
_JSON_FORMS: dict[type, str] = {
    **dict.fromkeys((int, float), "number"),
    bool: "boolean",
    type(None): "null",
    **dict.fromkeys((list, tuple, set, frozenset), "array"),
    dict: "object",
}

#: Pydantic's `Json`. Type checkers see another type under that name.
_JSON_MARKER: Any = Json

#: Types with keys. JSON writes the keys as text.
_TABLES = (dict, defaultdict, Mapping)

#: Types whose values change or get lost in JSON, with the reason and the remedy.
_REMEDIES: dict[Any, str] = {
    **dict.fromkeys((Iterable, Iterator, Generator), "is read once: write list"),
    Pattern: "is sent without its flags: write str",
    **dict.fromkeys((Callable, type), "JSON has not: send a name"),
}


def contract_faults(model: type[BaseModel]) -> Iterator[str]:
    """Yield a line, with the remedy, for each field whose value would change on its way to a worker."""
    yield from _model_faults(model, "", set())


def _model_faults(model: type[BaseModel], prefix: str, seen: set[type]) -> Iterator[str]:
    """Yield a line for each fault of a model and the models nested in it. Models in `seen` are left out.

    `prefix` begins the paths of its fields: `address.`, or "" for the contract itself.
    """
    if model in seen:
        return
    seen.add(model)
    for name in model.__private_attributes__:
        yield f"{prefix}{name} is private and is not sent: make it a field, or a property"
    for name in model.model_computed_fields:
        yield f"{prefix}{name} is a computed field, which the worker would refuse: make it a property"
    serializers = model.__pydantic_decorators__
    if serializers.model_serializers or serializers.field_serializers:
        subject = prefix.removesuffix(".") or model.__name__
        yield f"{subject} has a serializer of its own: send what JSON can write as it is"
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        yield from _field_faults(model, path, name, field)
        encoded = _has_encoding(field.metadata) or _writes_bytes_as_text(model)
        tagged = field.discriminator is not None
        for metadata in field.metadata:
            yield from _metadata_faults(metadata, path)
        yield from _type_faults(field.annotation, path, seen, encoded=encoded, tagged=tagged)


def _field_faults(model: type[BaseModel], path: str, name: str, field: FieldInfo) -> Iterator[str]:
    """Yield a line for each option by which a field is not sent, or is sent under a name that is refused."""
    if field.exclude:
        yield f"{path} is excluded and is not sent: leave out exclude=True"
    config = model.model_config
    accepted = {name} if config.get("populate_by_name") or config.get("validate_by_name") else set[str]()
    alias = field.validation_alias
    accepted |= {name} if alias is None else {alias} if isinstance(alias, str) else set()
    accepted |= {choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str)}
    sent = (field.serialization_alias or name) if config.get("serialize_by_alias") else name
    if sent not in accepted:
        yield (
            f"{path} is sent as {sent!r} and accepted as {', '.join(sorted(accepted)) or 'something else'}: "
            f"write validation_alias=AliasChoices({sent!r}, …)"
        )


def _metadata_faults(metadata: Any, path: str) -> Iterator[str]:
    """Yield a line if a part of a field's `Annotated` changes or hides the value that is sent."""
    if isinstance(metadata, PlainSerializer | WrapSerializer):
        yield f"{path} has a serializer of its own: send a type that JSON can write as it is"
    if isinstance(metadata, FieldInfo) and not metadata.repr:
        yield f"{path} hides a part of its value: write Field(repr=False) for the whole of it"
    if metadata is _JSON_MARKER or isinstance(metadata, _JSON_MARKER):
        yield f"{path} is Json, which is read twice: write the type that is in it"


def _type_faults(
    annotation: Any, path: str, seen: set[type], *, encoded: bool, tagged: bool
) -> Iterator[str]:
    """Yield a line for each part of a type that JSON cannot carry unchanged.

    `encoded`: bytes in it are written as text. `tagged`: a discriminator distinguishes the models of a union.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is _JSON_MARKER:
        yield from _metadata_faults(annotation, path)
        return
    if origin is Annotated:
        for metadata in arguments[1:]:
            yield from _metadata_faults(metadata, path)
        encoded = encoded or _has_encoding(arguments[1:])
        tagged = tagged or any(getattr(metadata, "discriminator", None) for metadata in arguments[1:])
        arguments = arguments[:1]
    elif origin in (Union, UnionType) and not tagged and (pair := _find_confusable_members(arguments)):
        yield f"{path} may come out as another type, {pair}: choose one, or give models a discriminator"
    elif origin is Literal:
        arguments = tuple(type(value) for value in arguments if isinstance(value, bytes))
    elif origin in _TABLES and arguments and (key_type := _unreadable_key(arguments[0])):
        yield f"{path} has keys of {key_type}, which arrive as text: choose text or a number, or send pairs"
    if isinstance(annotation, type) and origin is None:
        yield from _class_faults(annotation, path, seen, encoded=encoded)
    elif origin in _REMEDIES:
        yield f"{path} is {origin.__name__}, which {_REMEDIES[origin]}"
        return
    elif _is_secret(origin):
        yield f"{path} is Secret, which is sent as stars: write the type in it and Field(repr=False)"
        return
    for argument in arguments:
        yield from _type_faults(argument, path, seen, encoded=encoded, tagged=False)


def _class_faults(class_: type, path: str, seen: set[type], *, encoded: bool) -> Iterator[str]:
    """Yield a line for each part of a class that JSON cannot carry unchanged."""
    if issubclass(class_, SecretStr | SecretBytes) or _is_secret(class_):
        yield f"{path} is {class_.__name__}, which is sent as stars: write str and Field(repr=False)"
    elif issubclass(class_, bytes | bytearray) and not encoded:
        yield f"{path} is bytes, which JSON has not: write Base64Bytes"
    elif issubclass(class_, BaseModel):
        yield from _model_faults(class_, f"{path}.", seen)
    elif is_dataclass(class_) or is_typeddict(class_) or hasattr(class_, "_fields"):
        yield from _record_faults(class_, path, seen)
    elif class_ in _REMEDIES:
        yield f"{path} is {class_.__name__}, which {_REMEDIES[class_]}"


def _record_faults(class_: type, path: str, seen: set[type]) -> Iterator[str]:
    """Yield a line for each fault of a dataclass, a typed dictionary or a named tuple."""
    if class_ in seen:
        return
    seen.add(class_)
    try:
        hints = get_type_hints(class_, include_extras=True)
    except NameError as error:
        yield (
            f"{path} is {class_.__name__}, which names {error.name}, and there is none: "
            "define or import that before the contract"
        )
        return
    for name, hint in hints.items():
        # A field may be hidden (`repr=False`), except in a tuple, which is sent without names.
        may_hide = get_origin(hint) is Annotated and not issubclass(class_, tuple)
        encoded = _has_encoding(get_args(hint))
        annotation = get_args(hint)[0] if may_hide else hint
        yield from _type_faults(annotation, f"{path}.{name}", seen, encoded=encoded, tagged=False)


def _has_encoding(metadata: Iterable[Any]) -> bool:
    """True if the metadata of a field writes its bytes as text."""
    return any(isinstance(entry, EncodedBytes) for entry in metadata)


def _is_secret(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Secret)


def _writes_bytes_as_text(model: type[BaseModel]) -> bool:
    """True if a model writes and reads bytes as base64 or hexadecimal text."""
    writes, reads = model.model_config.get("ser_json_bytes"), model.model_config.get("val_json_bytes")
    return writes == reads and writes in ("base64", "hex")


def _find_confusable_members(members: tuple[Any, ...]) -> str:
    """Return two members of a union that JSON writes alike, as the text `A or B`; "" if there are none."""
    type_of_form: dict[str, type] = {}
    for member in members:
        for form, type_ in _json_forms(member):
            first_type = type_of_form.setdefault(form, type_)
            if first_type is not type_ and {first_type, type_} != {int, float}:
                return f"{first_type.__name__} or {type_.__name__}"
    return ""


def _json_forms(member: Any) -> Iterator[tuple[str, type]]:
    """Yield each JSON type of the values of a union's member, with the Python type."""
    origin, arguments = get_origin(member), get_args(member)
    if origin is Annotated:
        yield from _json_forms(arguments[0])
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from _json_forms(argument)
    elif origin is Literal:
        for value in arguments:
            yield ("text" if isinstance(value, Enum) else _JSON_FORMS.get(type(value), "text")), type(value)
    elif isinstance(origin or member, type):
        type_ = origin or member
        yield ("object" if issubclass(type_, BaseModel) else _JSON_FORMS.get(type_, "text")), type_


def _unreadable_key(key: Any) -> str:
    """Return the name of a key's type if JSON, which writes keys as text, cannot return it; otherwise ""."""
    origin, arguments = get_origin(key), get_args(key)
    if origin is Annotated:
        return _unreadable_key(arguments[0])
    if origin in (Literal, Union, UnionType):
        return "" if all(isinstance(argument, str) for argument in arguments) else "more than one type"
    if origin is not None:
        return str(origin.__name__)
    if not isinstance(key, type):
        return ""
    if issubclass(key, Enum):
        return "" if all(isinstance(member.value, str) for member in key) else key.__name__
    return key.__name__ if issubclass(key, BaseModel | tuple) else ""
