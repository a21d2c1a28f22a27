"""Let a module declare what a kind does: the `body` decorator and the list it fills.

A body is a function of its contract and a `Context`, nothing of Celery in it, so a test calls it as it is:

    @body(Greet, retries=3)
    def greet(job: Greet, context: Context) -> str:
        return f"hello {job.name}"

What it returns must be JSON, or a pydantic model. `tasks/app.py` makes Celery tasks of the list.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from tasks.context import Context
from tasks.contracts import Contract
from tasks.errors import BodyMissing, UnknownKind

C = TypeVar("C", bound=Contract)
BodyFunction = Callable[[C, Context], Any]


@dataclass(frozen=True)
class Body:
    """Tie a kind to the function that does its work.

    `retries` bounds how often `RetryLater` is followed; the wait before the n-th is drawn evenly from zero
    to `backoff_seconds` x 2^n, at most `backoff_limit_seconds` (full jitter: Brooker, "Exponential backoff
    and jitter").
    """

    contract: type[Contract]
    function: Callable[[Any, Context], Any]
    retries: int
    backoff_seconds: float
    backoff_limit_seconds: float

    @property
    def kind(self) -> str:
        """Return the task's name on the wire."""
        return self.contract.kind


_bodies: dict[str, Body] = {}


def body(
    contract: type[C], *, retries: int = 5, backoff_seconds: float = 1.0, backoff_limit_seconds: float = 600.0
) -> Callable[[BodyFunction[C]], BodyFunction[C]]:
    """Declare the decorated function to be what tasks of this contract's kind do.

    Raises `UnknownKind` for a contract without a kind, `TypeError` for a coroutine: a slot runs one function.
    """
    if not contract.kind:
        name = contract.__qualname__
        raise UnknownKind(f'{name} has no kind: declare it as class {name}(Contract, kind="…")')

    def declare(function: BodyFunction[C]) -> BodyFunction[C]:
        if inspect.iscoroutinefunction(function):
            name = getattr(function, "__name__", "it")
            raise TypeError(
                f"the body of {contract.kind!r} is async, and a slot runs an ordinary function: "
                f"write `def {name}` and call asyncio.run(…) in it"
            )
        _bodies[contract.kind] = Body(contract, function, retries, backoff_seconds, backoff_limit_seconds)
        return function

    return declare


def bodies() -> dict[str, Body]:
    """Return every body declared so far, by kind."""
    return dict(_bodies)


def load_body(contract: type[Contract], modules: Iterable[str] = ()) -> Body:
    """Return the body of a kind, importing what declares it: `task` beside `contract`, or one of `modules`.

    Raises `BodyMissing` where it, or what it needs, is not installed here.
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
        if contract.kind in _bodies:
            return _bodies[contract.kind]
    raise BodyMissing(
        f"the body of {contract.kind!r} cannot run here, for {lacking}. "
        "Install what it needs, or choose another overflow"
    )
