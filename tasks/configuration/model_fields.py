"""Read the pydantic models of the settings: the field at a path, its type, its valid values, its secrecy."""

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from millpond.tasks.field_types import ValidValues
from millpond.tasks.toml_names import toml_key

#: The tables that are at the top of millpond.toml and below `table` in the model, with their paths there.
LIFTED = {"pools": ("table", "pools"), "queues": ("table", "queues")}


Key = TypeVar("Key", bound=int | str)


def path_in_file(path: tuple[Key, ...]) -> tuple[Key, ...]:
    """Return a path of the model as millpond.toml has it, without the `table` that the model adds."""
    return path[1:] if path[0] == "table" and len(path) > 1 else path


def format_path(path: tuple[int | str, ...]) -> str:
    """Return a path of the model as millpond.toml spells it: `pools.email.bound`, `queues."orders.high"`."""
    return ".".join(toml_key(str(part)) for part in path_in_file(path))


def strip_annotated(annotation: Any) -> Any:
    """Return the type in an annotation, without `Annotated` and without `| None`."""
    if get_origin(annotation) is Annotated:
        return strip_annotated(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return strip_annotated(members[0]) if len(members) == 1 else annotation
    return annotation


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the pydantic model class of an annotation. Return None if it is no model."""
    type_ = strip_annotated(annotation)
    return type_ if isinstance(type_, type) and issubclass(type_, BaseModel) else None


def value_type_of(annotation: Any) -> Any:
    """Return the type of the values of a table by name, a `dict`. Return None for any other type."""
    type_ = strip_annotated(annotation)
    return get_args(type_)[1] if get_origin(type_) is dict else None


def is_list(annotation: Any) -> bool:
    """True if the type is a list, which the models have as a tuple."""
    return get_origin(strip_annotated(annotation)) is tuple


def is_table(annotation: Any) -> bool:
    """True if a value of the type is written as a table: a model, or a `dict`."""
    return model_of(annotation) is not None or value_type_of(annotation) is not None


def table_names(model: type[BaseModel]) -> list[str]:
    """Return the names of the tables at the top of millpond.toml. `model` is the class of all settings."""
    fields = model.model_fields.items()
    return [*LIFTED, *(name for name, field in fields if is_table(field.annotation) and name != "table")]


def field_at(model: type[BaseModel], path: Iterable[int | str]) -> FieldInfo | None:
    """Return the field at a path. Return None if the model has no such field.

    For an entry of a list or of a table by name, return a field made of the entry's type. For a path that
    leads into a plain value, return the field of that value.
    """
    field: FieldInfo | None = None
    annotation: Any = model
    for part in path:
        if (table := model_of(annotation)) is not None:
            field = table.model_fields.get(str(part))
            if field is None:
                return None
            annotation = field.annotation
        elif (entry_type := value_type_of(annotation)) is not None:
            annotation, field = entry_type, FieldInfo.from_annotation(entry_type)
        elif is_list(annotation):
            annotation = get_args(strip_annotated(annotation))[0]
            field = FieldInfo.from_annotation(annotation)
    return field


def describe_values(field: FieldInfo) -> str:
    """Return the valid values of a field in words, to follow "write" in a sentence."""
    for metadata in _field_metadata(field):
        if isinstance(metadata, ValidValues):
            return metadata.words
    annotation = strip_annotated(field.annotation)
    if get_origin(annotation) is Literal:
        *values, last = get_args(annotation)
        return f"{', '.join(values)} or {last}"
    if annotation is bool:
        return "true or false"
    if is_table(annotation):
        return "a table of names and values"
    if is_list(annotation):
        return "a list of tables"
    return {"Path": "a path", "SecretStr": "text, which is kept secret"}.get(
        getattr(annotation, "__name__", ""), "text"
    )


def is_secret(field: FieldInfo) -> bool:
    """True if a field's value must not be shown: `SecretStr`, `repr=False`, or a table with such a field."""
    annotation = strip_annotated(field.annotation)
    if is_list(annotation):
        annotation = get_args(annotation)[0]
    if field.repr is False or annotation is SecretStr:
        return True
    table = model_of(annotation)
    return table is not None and any(is_secret(nested) for nested in table.model_fields.values())


def _field_metadata(field: FieldInfo) -> Iterable[Any]:
    """Yield the metadata of a field, also those of the members of a union."""
    yield from field.metadata
    annotation: Any = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            if get_origin(member) is Annotated:
                yield from get_args(member)[1:]
    elif get_origin(annotation) is Annotated:
        yield from get_args(annotation)[1:]
