"""Contracts: the base class of the models of tasks' arguments, and the registry of kinds.

A contract is a frozen pydantic model. Its fields are the task's keyword arguments, so a stock Celery client
sends the same task with `send_task(kind, kwargs={...}, queue=...)`. A field declared with `repr=False` is
redacted wherever arguments are shown.
"""

import importlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from millpond.tasks.contract_faults import contract_faults
from millpond.tasks.errors import BadContract, UnknownKind
from millpond.tasks.field_faults import describe_faults
from millpond.tasks.name_suggestions import unknown_name_text
from millpond.tasks.redaction import redact

#: The modules that declare Millpond's own contracts.
SHIPPED_MODULES = (
    "millpond.tasks.email.contract",
    "millpond.tasks.files.contract",
    "millpond.tasks.squares.contract",
)

#: Names that no field may have: `job.kind` would be the field's value, and the task would be sent as that.
_RESERVED_FIELDS = frozenset(("kind", "queue", "redacted"))

Model = TypeVar("Model", bound=BaseModel)

_kinds: dict[str, type["Contract"]] = {}


class Contract(BaseModel):
    """Base of every contract: `class Greet(Contract, kind="greet", queue="default")`.

    `kind` is the name of the type of task in messages. `queue` is its queue, unless a send names another.
    A base class may set both in its `__init_subclass__`. The declaration registers the kind. It raises
    `UnknownKind` if another class has the kind, and `BadContract` if JSON would change the value of a field,
    or if a field is named `kind`, `queue` or `redacted`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str] = ""
    queue: ClassVar[str] = "default"

    def __init_subclass__(cls, *, kind: str = "", queue: str | None = None, **config: Any) -> None:
        # Both are known to the `__init_subclass__` of a base class of the user's. The fields are not yet.
        if kind:
            cls.kind = kind
        if queue:
            cls.queue = queue
        super().__init_subclass__(**config)

    @classmethod
    def __pydantic_init_subclass__(cls, *, kind: str = "", queue: str | None = None, **config: Any) -> None:
        del kind, queue
        super().__pydantic_init_subclass__(**config)
        for name in _RESERVED_FIELDS & cls.model_fields.keys():
            raise BadContract(f"{cls.__qualname__} has a field {name!r}, a name of Contract's own: rename it")
        if own_kind := vars(cls).get("kind"):
            _register(cls, own_kind)

    def redacted(self) -> dict[str, Any]:
        """Return the fields as JSON has them. A note of the length replaces the value of a hidden field."""
        return redact(type(self), self.model_dump(mode="json"))


def _register(contract: type[Contract], kind: str) -> None:
    """Add a contract to the registry. Raises `UnknownKind` and `BadContract`."""
    declared = _kinds.get(kind, contract)
    if (declared.__module__, declared.__qualname__) != (contract.__module__, contract.__qualname__):
        modules = f"{declared.__module__} and {contract.__module__}"
        raise UnknownKind(f"two contracts are named {kind!r}, in {modules}: rename one")
    for fault in contract_faults(contract):
        raise BadContract(f"the contract {kind} cannot be carried: {fault}")
    _kinds[kind] = contract


def missing_kind_error(contract: type[Contract]) -> UnknownKind:
    """Return the error for the use of a contract that was declared without a kind."""
    name = contract.__qualname__
    return UnknownKind(f'{name} has no kind: declare it as class {name}(Contract, kind="…")')


def contract_of(kind: str) -> type[Contract]:
    """Return the contract of a kind. Raises `UnknownKind`, which names the known kinds."""
    if kind not in _kinds:
        load_shipped_contracts()
    try:
        return _kinds[kind]
    except KeyError:
        raise UnknownKind(unknown_name_text("kind", kind, _kinds)) from None


def load_shipped_contracts() -> None:
    """Import Millpond's own contracts, which register themselves."""
    for module in SHIPPED_MODULES:
        importlib.import_module(module)


def contracts_by_kind() -> dict[str, type[Contract]]:
    """Return a copy of the registry: the contracts declared so far, by kind."""
    return dict(_kinds)


def job_from_fields(contract: type[Contract], fields: Mapping[str, Any]) -> Contract:
    """Return a job of the contract with these fields. Raises `BadContract`."""
    try:
        return validate_fields(contract, fields)
    except ValidationError as error:
        raise contract_error(error, subject=contract.kind) from None


def validate_fields(model: type[Model], fields: Any) -> Model:
    """Return an object of the model with fields that came as JSON. Raises pydantic's `ValidationError`.

    A strict model accepts a date as text only in JSON. So fields that it refuses are validated as JSON, too.
    """
    try:
        return model.model_validate(fields)
    except ValidationError:
        with suppress(ValueError, TypeError, RecursionError):
            return model.model_validate_json(json.dumps(fields))
        raise


def contract_error(error: ValidationError, *, subject: str) -> BadContract:
    """Return pydantic's error as a `BadContract` of one line, with each field at fault and no value."""
    return BadContract(f"{subject} does not fit its contract: {'; '.join(describe_faults(error.errors()))}")
