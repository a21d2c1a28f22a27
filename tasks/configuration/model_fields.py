"""Walk the models of the settings: the field at a path, and the names beside it."""

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from millpond.tasks.field_types import ValidValues

#: Tables that a person writes at the top, and their place in the model.
LIFTED = {"pools": ("table", "pools"), "queues": ("table", "queues")}


def format_path(path: Iterable[int | str]) -> str:
    """Return a path of the model as the file has it: `pools.email.bound`, `gateway.tokens.0.hash`."""
    parts = [str(part) for part in path]
    return ".".join(parts[1:] if parts[0] == "table" and parts[1:] else parts)


def strip_annotated(annotation: Any) -> Any:
    """Return a type without `Annotated` and `None`."""
    if get_origin(annotation) is Annotated:
        return strip_annotated(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        others = [each for each in get_args(annotation) if each is not type(None)]
        return strip_annotated(others[0]) if len(others) == 1 else annotation
    return annotation


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the pydantic model class of an annotation. Return None if it is no model."""
    type_ = strip_annotated(annotation)
    return type_ if isinstance(type_, type) and issubclass(type_, BaseModel) else None


def value_type_of(annotation: Any) -> Any:
    """Return the type of the values of a table by name. Return None if the type is no such table."""
    type_ = strip_annotated(annotation)
    return get_args(type_)[1] if get_origin(type_) is dict else None


def is_list(annotation: Any) -> bool:
    """True if the type is a list of entries."""
    return get_origin(strip_annotated(annotation)) is tuple


def is_table(annotation: Any) -> bool:
    """True if the field is written as a table: a model, or tables by name."""
    return model_of(annotation) is not None or value_type_of(annotation) is not None


def field_at(model: type[BaseModel], path: Iterable[int | str]) -> FieldInfo | None:
    """Return the field that governs a path, or that the path lies in. Return None if there is none."""
    found: FieldInfo | None = None
    annotation: Any = model
    for part in path:
        below = model_of(annotation)
        if below is not None:
            field = below.model_fields.get(str(part))
            if field is None:
                return None
            found, annotation = field, field.annotation
        elif (values := value_type_of(annotation)) is not None:
            annotation = values
            found = FieldInfo.from_annotation(values)
        elif is_list(annotation):
            annotation = get_args(strip_annotated(annotation))[0]
            found = FieldInfo.from_annotation(annotation)
    return found


def describe_values(field: FieldInfo) -> str:
    """Return the valid values of a field in words, to follow "write"."""
    for each in _field_metadata(field):
        if isinstance(each, ValidValues):
            return each.words
    annotation = strip_annotated(field.annotation)
    if get_origin(annotation) is Literal:
        *most, last = get_args(annotation)
        return f"{', '.join(most)} or {last}"
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
    """True if the field is hidden: a secret, or a field that its model keeps out of its `repr`."""
    annotation = strip_annotated(field.annotation)
    if (
        field.repr is False
        or annotation is SecretStr
        or (is_list(annotation) and get_args(annotation)[0] is SecretStr)
    ):
        return True
    below = model_of(annotation) or (model_of(get_args(annotation)[0]) if is_list(annotation) else None)
    return below is not None and any(is_secret(each) for each in below.model_fields.values())


def _field_metadata(field: FieldInfo) -> Iterable[Any]:
    """Yield the metadata of a field, also of a type that is part of a union."""
    yield from field.metadata
    annotation: Any = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        for each in get_args(annotation):
            if get_origin(each) is Annotated:
                yield from get_args(each)[1:]
    elif get_origin(annotation) is Annotated:
        yield from get_args(annotation)[1:]
