"""The fields of a contract as JSON has them, and whether they arrive as they were sent.

Types that JSON carries as they are need no look. A contract with others (a model, which may hold one of its
subclasses; `Any`; a validator) is read back before it is sent: a job that would arrive changed is refused.
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

from millpond.tasks.contract import Contract, read_fields
from millpond.tasks.errors import BadContract
from millpond.tasks.redaction import nested_models

_PLAIN = (str, int, float, bool, NoneType, date, datetime, time, timedelta, Decimal, UUID, Path)
_CONTAINERS = (list, tuple, set, frozenset, dict, Union, UnionType)
_VALIDATORS = ("validators", "field_validators", "root_validators", "model_validators")


def wire_fields(job: Contract) -> dict[str, Any]:
    """Return the fields that are not their default, as JSON has them.

    Raises `BadContract` for a job that JSON cannot write, or that a worker would read as another.
    """
    contract = type(job)
    if is_plain(contract):
        return _dump_fields(job, exclude_defaults=True)
    options: dict[str, Any] = {"exclude_defaults": True}
    if len(nested_models(contract)) > 1:
        # The defaults of a nested model are sent: they may distinguish it from other models of a union.
        names = {name for name, each in contract.model_fields.items() if getattr(job, name) != each.default}
        options = {"include": names | (job.model_extra or {}).keys()}
    _refuse_changed(job, _dump_fields(job, **options))
    return _dump_fields(job, **options)  # anew: a validator may have changed the first


def _dump_fields(job: Contract, **options: Any) -> dict[str, Any]:
    """Return the fields as JSON can write them. Raises `BadContract`."""
    try:
        return job.model_dump(mode="json", **options)
    except ValueError as error:  # pydantic's own for a value that it cannot write, and for bytes
        raise BadContract(
            f"{job.kind} cannot be written as JSON: {error}. Send text, numbers, lists and objects; "
            "bytes as base64 (pydantic: ser_json_bytes and val_json_bytes)"
        ) from None


def _refuse_changed(job: Contract, fields: dict[str, Any]) -> None:
    """Raise `BadContract` if these fields of the job are read back as another job. No value is shown."""
    try:
        arrived = read_fields(type(job), fields)
    except BadContract as error:
        raise BadContract(f"{job.kind} cannot be sent, for no worker could read it: {error}") from None
    for fault in _changed_values(job, arrived, ""):
        raise BadContract(f"{job.kind} cannot be sent: {fault}")


def _changed_values(sent: Any, arrived: Any, place: str) -> Iterator[str]:
    """Yield a line for each value that arrives as another.

    A tuple may arrive as a list, and NaN equals itself.
    """
    within = f"{place}." if place else ""
    if sent == arrived or (sent != sent and arrived != arrived):
        return
    if isinstance(sent, BaseModel) and type(sent) is type(arrived):
        for name in (*type(sent).model_fields, *(sent.model_extra or ())):
            yield from _changed_values(getattr(sent, name), getattr(arrived, name), f"{within}{name}")
    elif isinstance(sent, dict) and isinstance(arrived, dict):
        if sent.keys() == arrived.keys():
            for key, each in sent.items():
                yield from _changed_values(each, arrived[key], f"{within}{key}")
        else:
            yield f"{place} has keys that are no text, which arrive as others: write them as text"
    elif isinstance(sent, list | tuple) and isinstance(arrived, list | tuple) and len(sent) == len(arrived):
        for number, each in enumerate(sent):
            yield from _changed_values(each, arrived[number], f"{within}{number}")
    elif type(sent) is not type(arrived):
        kind = type(arrived).__name__
        yield f"{place} holds a {type(sent).__name__}, which arrives as a {kind}: declare its type"
    else:
        yield f"{place} arrives as another value: a validator must leave a value alone that it has returned"


@lru_cache(maxsize=1_000)
def is_plain(contract: type[BaseModel]) -> bool:
    """True if every value that the contract accepts comes out of JSON as it went in, by its types alone."""
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
    """True if every value of a type comes out of JSON as it went in."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_plain_type(arguments[0]) and all(map(_is_constraint, arguments[1:]))
    if origin is Literal:
        return all(isinstance(each, str | int | None) for each in arguments)
    if origin in _CONTAINERS:
        return all(each is ... or _is_plain_type(each) for each in arguments)
    is_enum = isinstance(annotation, type) and issubclass(annotation, Enum)
    return is_enum or annotation is None or annotation in _PLAIN


def _is_constraint(metadata: Any) -> bool:
    """True if the metadata only accepts or refuses a value, as `Gt` does, or changes it once."""
    return isinstance(metadata, BaseMetadata | StringConstraints) and not isinstance(metadata, Strict)
