"""Make the JSON fields of a job, and refuse a job that a worker would read as another one.

A job is not checked if JSON carries all types of its contract unchanged. Other types are a model, which may
be an object of a subclass, `Any`, and a type with a validator. A job with such a type is read back.
"""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from annotated_types import BaseMetadata
from pydantic import BaseModel
from pydantic.types import Strict, StringConstraints

from millpond.tasks.contract import Contract, job_from_fields
from millpond.tasks.errors import BadContract
from millpond.tasks.redaction import nested_models

_PLAIN = (str, int, float, bool, NoneType, date, datetime, time, timedelta, Decimal, UUID, Path)
_CONTAINERS = (list, tuple, set, frozenset, dict, Union, UnionType)
_VALIDATORS = ("validators", "field_validators", "root_validators", "model_validators")


def wire_fields(job: Contract) -> dict[str, Any]:
    """Return the fields that differ from their default, as JSON has them.

    Raises `BadContract` for a job that JSON cannot write, or that a worker would read as another one.
    """
    contract = type(job)
    if is_carried_unchanged(contract):
        return _dump_fields(job, exclude_defaults=True)
    options: dict[str, Any] = {"exclude_defaults": True}
    if len(nested_models(contract)) > 1:
        # The defaults of a nested model are sent: they may distinguish it from other models of a union.
        fields = contract.model_fields
        names = {name for name, field in fields.items() if getattr(job, name) != field.default}
        options = {"include": names | (job.model_extra or {}).keys()}
    _refuse_changed(job, _dump_fields(job, **options))
    return _dump_fields(job, **options)  # again: a validator may have changed the first one


def _dump_fields(job: Contract, **options: Any) -> dict[str, Any]:
    """Return the job's fields as JSON has them. Raises `BadContract` if JSON cannot write a value."""
    try:
        return job.model_dump(mode="json", **options)
    except ValueError as error:  # pydantic raises it for bytes and for values that it cannot write
        raise BadContract(
            f"{job.kind} cannot be written as JSON: {error}. Send text, numbers, lists and objects; "
            "bytes as base64 (pydantic: ser_json_bytes and val_json_bytes)"
        ) from None


def _refuse_changed(job: Contract, fields: dict[str, Any]) -> None:
    """Raise `BadContract` if a worker would read these fields as another job. The error shows no value."""
    try:
        arrived = job_from_fields(type(job), fields)
    except BadContract as error:
        raise BadContract(f"{job.kind} cannot be sent, for no worker could read it: {error}") from None
    for fault in _changed_values(job, arrived, ""):
        raise BadContract(f"{job.kind} cannot be sent: {fault}")


def _changed_values(sent: Any, arrived: Any, path: str) -> Iterator[str]:
    """Yield a line for each value that differs between the sent and the arrived job.

    `path` is the path of both values in the job. A tuple may arrive as a list. Two NaN are equal.
    """
    prefix = f"{path}." if path else ""
    if sent == arrived or (sent != sent and arrived != arrived):
        return
    if isinstance(sent, BaseModel) and type(sent) is type(arrived):
        for name in (*type(sent).model_fields, *(sent.model_extra or ())):
            yield from _changed_values(getattr(sent, name), getattr(arrived, name), f"{prefix}{name}")
    elif isinstance(sent, dict) and isinstance(arrived, dict):
        if sent.keys() == arrived.keys():
            for key, value in sent.items():
                yield from _changed_values(value, arrived[key], f"{prefix}{key}")
        else:
            yield f"{path} has keys that are no text, which arrive as others: write them as text"
    elif isinstance(sent, list | tuple) and isinstance(arrived, list | tuple) and len(sent) == len(arrived):
        for number, value in enumerate(sent):
            yield from _changed_values(value, arrived[number], f"{prefix}{number}")
    elif type(sent) is not type(arrived):
        types = f"a {type(sent).__name__}, which arrives as a {type(arrived).__name__}"
        yield f"{path} holds {types}: declare its type"
    else:
        yield f"{path} arrives as another value: a validator must leave a value alone that it has returned"


@lru_cache(maxsize=1_000)
def is_carried_unchanged(contract: type[BaseModel]) -> bool:
    """True if the types of a contract guarantee that JSON carries every value unchanged."""
    rules, config = contract.__pydantic_decorators__, contract.model_config
    return (
        not any(getattr(rules, name) for name in _VALIDATORS)
        and contract.model_post_init is BaseModel.model_post_init
        and config.get("extra") != "allow"
        and not config.get("strict")
        and all(
            _is_plain_type(field.annotation) and all(map(_is_constraint, field.metadata))
            for field in contract.model_fields.values()
        )
    )


def _is_plain_type(annotation: Any) -> bool:
    """True if JSON carries every value of a type unchanged."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_plain_type(arguments[0]) and all(map(_is_constraint, arguments[1:]))
    if origin is Literal:
        return all(isinstance(argument, str | int | None) for argument in arguments)
    if origin in _CONTAINERS:
        return all(argument is ... or _is_plain_type(argument) for argument in arguments)
    is_enum = isinstance(annotation, type) and issubclass(annotation, Enum)
    return is_enum or annotation is None or annotation in _PLAIN


def _is_constraint(metadata: Any) -> bool:
    """True if the metadata only refuses values, as `Gt`, or changes a value only the first time."""
    return isinstance(metadata, BaseMetadata | StringConstraints) and not isinstance(metadata, Strict)
