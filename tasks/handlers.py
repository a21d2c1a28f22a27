"""Handlers: the functions that do the work of kinds, and the decorator by which a module declares them.

A handler is a plain function of its job and a `Context`, without Celery, so a test can call it directly:

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
    """A kind, the function that does its work, and its retries.

    `retries` is the most retries of a task. The wait before a retry is random between 0 and
    `backoff_seconds` x 2^n, at most `backoff_limit_seconds`; n is the number of retries before it.
    """

    contract: type[Contract] | None
    function: Callable[[Any, Context], Any]
    retries: int = 5
    backoff_seconds: float = 1.0
    backoff_limit_seconds: float = 600.0

    #: True for Celery's tracer: the function takes the message instead of a job, and logs its end itself.
    takes_message: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """The kind of the handler; "" without a contract."""
        return "" if self.contract is None else self.contract.kind

    @cached_property
    def contract_with_secrets(self) -> type[Contract] | None:
        """The contract if it hides fields; None if it hides none."""
        return self.contract if self.contract is not None and hides_fields(self.contract) else None


_handlers: dict[str, Handler] = {}


def handler(
    contract: type[C], *, retries: int = 5, backoff_seconds: float = 1.0, backoff_limit_seconds: float = 600.0
) -> Callable[[HandlerFunction[C]], HandlerFunction[C]]:
    """Declare the decorated function as the handler of this contract's kind.

    Raises `UnknownKind` for a contract without a kind, and if another function handles that kind.
    Raises `TypeError` for a class that is no contract, for a function with `async` or `yield`, and for one
    that cannot be called with a job and a context.
    """
    if not (isinstance(contract, type) and issubclass(contract, Contract)):
        raise TypeError(f"{contract!r:.80} is no contract: write @handler(Greet) above the handler of Greet")
    if not contract.kind:
        raise missing_kind_error(contract)

    def declare(function: HandlerFunction[C]) -> HandlerFunction[C]:
        _check_declaration(contract.kind, function)
        _handlers[contract.kind] = Handler(
            contract, function, retries, backoff_seconds, backoff_limit_seconds
        )
        return function

    return declare


#: The older name of the decorator.
body = handler


def _check_declaration(kind: str, function: Callable[..., Any]) -> None:
    """Raise `TypeError` or `UnknownKind` if this function cannot be the handler of the kind."""
    name = getattr(function, "__name__", "it")
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"the handler of {kind!r} is async, and a slot runs an ordinary function: "
            f"write `def {name}` and call asyncio.run(…) in it"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"the handler of {kind!r} has a yield, so that a call of {name} runs nothing: return the value"
        )
    try:
        with suppress(ValueError):  # the parameters of some functions written in C are unknown
            # A decorator may add arguments to those of the function that it wraps.
            inspect.signature(function, follow_wrapped=False).bind("job", "context")
    except TypeError as bind_error:
        raise TypeError(
            f"the handler of {kind!r} is called with the job and its context, and {name} cannot be "
            f"({bind_error}): write `def {name}(job, context)`"
        ) from None
    declared = _handlers.get(kind)
    if declared is not None and _function_name(declared.function) != _function_name(function):
        names = f"{_function_name(declared.function)} and {_function_name(function)}"
        raise UnknownKind(
            f"two functions are the handler of {kind!r}, {names}: remove one, or give it a contract "
            "of its own"
        )


def _function_name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', function)}"


def handlers_by_kind() -> dict[str, Handler]:
    """Return a copy of the registry: the handlers declared so far, by kind."""
    return dict(_handlers)


#: The modules of handlers that this process could not import -> the module that each lacks.
modules_left_out: dict[str, str] = {}


def load_handler(contract: type[Contract], modules: Iterable[str] = ()) -> Handler:
    """Return the handler of a contract. If it is not declared so far, import the modules that may declare it.

    These are `task` beside the contract's module if that is named `contract`, and then `modules`, in order.
    Raises `HandlerMissing` if no module declares it, or if a library is not installed here.
    """
    package, _, name = contract.__module__.rpartition(".")
    candidates = (f"{package}.task", *modules) if name == "contract" else tuple(modules)
    reason = "no module declares it: name the one that does in MILLPOND_KINDS"
    for module in ("", *candidates):
        try:
            if module:
                importlib.import_module(module)
        except ModuleNotFoundError as error:
            reason = f"{error.name} is not installed"
        if contract.kind in _handlers:
            return _handlers[contract.kind]
    raise HandlerMissing(
        f"the handler of {contract.kind!r} cannot run here, for {reason}. "
        "Install what it needs, or choose another overflow"
    )
