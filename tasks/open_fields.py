"""The fields of a contract with an open type: `Any`, `object`, a bare `dict` or `list`.

JSON writes a model in such a field as an object, with its secrets as stars and its hidden fields in the open.
"""

from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.types import Secret

from millpond.tasks.contract import Contract
from millpond.tasks.errors import BadContract
from millpond.tasks.redaction import models_in, models_of

_OPEN: tuple[Any, ...] = (Any, object, dict, list, tuple, set, frozenset)


def refuse_undeclared(job: Contract) -> None:
    """Raise `BadContract` for a model, a dataclass or a secret that the type of its field does not name."""
    for fault in _of_model(job, "") if has_open_fields(type(job)) else ():
        raise BadContract(f"{job.kind} cannot be sent: {fault}")


@lru_cache(maxsize=1_000)
def has_open_fields(contract: type[BaseModel]) -> bool:
    """True if some field of the contract is open; others are sent without a look at their values."""
    some = (model for model in models_of(contract) if issubclass(model, BaseModel))
    return any(_is_open(field.annotation) for model in some for field in model.model_fields.values())


def _is_open(annotation: Any) -> bool:
    annotation = getattr(annotation, "__value__", annotation)  # of a `type` alias
    if annotation in _OPEN or isinstance(annotation, TypeVar):
        return True
    return any(map(_is_open, get_args(annotation)))


def _of_model(job: BaseModel, place: str) -> Iterator[str]:
    for name, field in type(job).model_fields.items():
        declared = tuple(models_in(field.annotation))
        yield from _of_value(getattr(job, name), f"{place}{name}", declared)


def _of_value(value: Any, place: str, declared: tuple[type[Any], ...]) -> Iterator[str]:
    if isinstance(value, str | int | float | None):
        return
    if isinstance(value, SecretStr | SecretBytes | Secret):
        yield f"{place} holds {type(value).__name__}, sent as stars: declare a str with repr=False"
    elif isinstance(value, declared) and isinstance(value, BaseModel):
        yield from _of_model(value, f"{place}.")
    elif isinstance(value, dict):
        for each in value.values():
            yield from _of_value(each, place, declared)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _of_value(each, place, declared)
    elif (isinstance(value, BaseModel) or is_dataclass(value)) and not isinstance(value, declared):
        name = type(value).__name__
        yield f"{place} holds a {name}, and its type does not say so: declare it, or send a dictionary"
