"""Handlers: the functions that do the work of kinds, and the decorator by which a module declares them.

A handler is a function of its contract and a `Context`, nothing of Celery in it, so a test calls it as it is:

    @handler(Greet, retries=3)
    def greet(job: Greet, context: Context) -> str:
        return f"hello {job.name}"

Its result must be JSON, or a pydantic model. `@body` is the older name of the decorator.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract, missing_kind_error
from millpond.tasks.errors import HandlerMissing, UnknownKind
from millpond.tasks.redaction import hides_fields

C = TypeVar("C", bound=Contract)
HandlerFunction = Callable[[C, Context], Any]


@dataclass(frozen=True)
class Handler:
    """A kind and the function that does its work.

    `retries` bounds how often `RetryLater` is followed. The wait before the n-th is drawn evenly from zero
    to `backoff_seconds` x 2^n, at most `backoff_limit_seconds` (full jitter: Brooker, "Exponential backoff
    and jitter").
    """

    contract: type[Contract] | None
    function: Callable[[Any, Context], Any]
    retries: int = 5
    backoff_seconds: float = 1.0
    backoff_limit_seconds: float = 600.0

    #: True if the function takes the message itself, and logs how it ended: Celery's tracer.
    takes_message: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """Return the task's name on the wire."""
        return "" if self.contract is None else self.contract.kind

    @cached_property
    def contract_with_secrets(self) -> type[Contract] | None:
        """Return the contract if it hides fields. Return None if it hides none."""
        return self.contract if self.contract is not None and hides_fields(self.contract) else None


_handlers: dict[str, Handler] = {}


def handler(
    contract: type[C], *, retries: int = 5, backoff_seconds: float = 1.0, backoff_limit_seconds: float = 600.0
) -> Callable[[HandlerFunction[C]], HandlerFunction[C]]:
    """Declare the decorated function as the handler of this contract's kind.

    Raises `UnknownKind` for a contract without a kind, and if another function handles that kind.
    Raises `TypeError` for a class that is no contract, and for a function that a slot cannot call with a job
    and a context.
    """
    if not (isinstance(contract, type) and issubclass(contract, Contract)):
        raise TypeError(f"{contract!r:.80} is no contract: write @handler(Greet) above the handler of Greet")
    if not contract.kind:
        raise missing_kind_error(contract)

    def declare(function: HandlerFunction[C]) -> HandlerFunction[C]:
        """Register a function as the handler of the kind."""
        _check_declaration(contract.kind, function)
        _handlers[contract.kind] = Handler(
            contract, function, retries, backoff_seconds, backoff_limit_seconds
        )
        return function

    return declare


#: The older name of the decorator.
body = handler


def _check_declaration(kind: str, function: Callable[..., Any]) -> None:
    """Refuse a function that cannot be the handler of the kind, or a second one."""
    name = getattr(function, "__name__", "it")
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"the handler of {kind!r} is async, and a slot runs an ordinary function: "
            f"write `def {name}` and call asyncio.run(…) in it"
        )
    try:
        with suppress(ValueError):  # the parameters of some functions written in C are unknown
            inspect.signature(function).bind("job", "context")
    except TypeError as unfit:
        raise TypeError(
            f"the handler of {kind!r} is called with the job and its context, and {name} cannot be "
            f"({unfit}): write `def {name}(job, context)`"
        ) from None
    declared = _handlers.get(kind)
    if declared is not None and _function_name(declared.function) != _function_name(function):
        both = f"{_function_name(declared.function)} and {_function_name(function)}"
        raise UnknownKind(
            f"two functions are the handler of {kind!r}, {both}: remove one, or give it a contract of its own"
        )


def _function_name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', function)}"


def handlers() -> dict[str, Handler]:
    """Return every handler declared so far, by kind."""
    return dict(_handlers)


_lacking: dict[str, str] = {}


def record_missing_module(module: str, missing: str) -> None:
    """Record that a module of handlers was left out, since a module that it imports is not installed."""
    _lacking[module] = missing


def modules_left_out() -> dict[str, str]:
    """Return the modules of handlers that were left out, each with the module that is not installed."""
    return dict(_lacking)


def load_handler(contract: type[Contract], modules: Iterable[str] = ()) -> Handler:
    """Return the handler of a kind. Import its module: `task` beside `contract`, or one of `modules`.

    Raises `HandlerMissing` if it, or a library that it imports, is not installed here.
    """
    package, _, name = contract.__module__.rpartition(".")
    beside = (f"{package}.task",) if name == "contract" else ()
    lacking = "no module declares it: name the one that does in MILLPOND_KINDS"
    for module in ("", *beside, *modules):
        try:
            if module:
                importlib.import_module(module)
        except ModuleNotFoundError as missing:
            lacking = f"{missing.name} is not installed"
        if contract.kind in _handlers:
            return _handlers[contract.kind]
    raise HandlerMissing(
        f"the handler of {contract.kind!r} cannot run here, for {lacking}. "
        "Install what it needs, or choose another overflow"
    )
