"""Middleware: code that runs around sending, around executing, on an outcome, on a worker's start and stop.

A middleware overrides the methods it needs; the others cost nothing. It is named in the
setting `middleware`, as `module:Class`, or by an entry point of the group `millpond.middleware` of an
installed package. The first is the outermost: it sees a job first and an outcome last.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from millpond.tasks.errors import SettingsError
from millpond.tasks.module_loading import import_modules

if TYPE_CHECKING:
    from millpond.broker.delivery import Delivery
    from millpond.broker.outcomes import Outcome
    from millpond.tasks.context import Context


#: The group of entry points by which an installed package brings middleware.
GROUP = "millpond.middleware"

#: Headers of a message that are not middleware's to set.
RESERVED = frozenset(
    [
        "lang",
        "task",
        "id",
        "shadow",
        "eta",
        "expires",
        "group",
        "group_index",
        "retries",
        "timelimit",
        "root_id",
        "parent_id",
        "argsrepr",
        "kwargsrepr",
        "origin",
        "ignore_result",
        "replaced_task_nesting",
        "stamped_headers",
        "stamps",
        "millpond",
        "traceparent",
    ]
)


@dataclass(slots=True)
class Sending:
    """A task that is about to be sent; entries added to `headers` (JSON) travel with its message."""

    #: A contract; for a task of a Celery application a `Call`: `kind`, `args` and `kwargs`.
    job: Any
    id: str
    queue: str
    batch: str | None = None
    #: The trace that the task continues, by the W3C's Trace Context.
    traceparent: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)


class Middleware:
    """Base of every middleware; each method does nothing of its own."""

    def on_sending(self, sending: Sending) -> None:
        """Add headers to a task before it is sent; if this raises, the task is not sent.

        Called in the process that sends, for each task of a stream.
        """

    def on_sent(self, sending: Sending, error: Exception | None) -> None:
        """Note that a task was sent, or that it was refused with an error."""

    def around_executing(
        self, job: Any, context: "Context", call_next: Callable[[Any, "Context"], Any]
    ) -> Any:
        """Run one task; return the result of `call_next`, and let its errors pass.

        `context.message` has the headers. Called in the slot: in its thread, or in its prefork child.
        """
        return call_next(job, context)

    def on_outcome(self, delivery: "Delivery", outcome: "Outcome", seconds: float | None) -> None:
        """Note how a delivery ended, in the worker's process; `seconds` it ran, None: it did not."""

    def on_worker_start(self) -> None:
        """Prepare a worker process, before it takes its first message; also each prefork child."""

    def on_worker_stop(self) -> None:
        """Clean up as a worker process ends."""


def overriding(middleware: Sequence[Middleware], method: str) -> tuple[Middleware, ...]:
    """Return those that override a method, in order."""
    return tuple(
        each for each in middleware if getattr(type(each), method) is not getattr(Middleware, method)
    )


def load(names: Iterable[str]) -> tuple[Middleware, ...]:
    """Return the middleware that the setting names, then that of installed packages.

    The same objects each time it is asked in a process. Raises `SettingsError` for a name that is none.
    """
    return (*(_load_one(name) for name in names), *_of_packages())


@cache
def _load_one(name: str, setting: str = "middleware") -> Middleware:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise SettingsError(
            f"{setting} names {name!r}: write the module and the class, as in shop.tenants:Tenants"
        )
    import_modules([module], setting=setting)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except AttributeError:
        raise SettingsError(f"{setting} names {name!r}, and {module} has no {attribute!r}") from None
    return _made(found, f"{setting} names {name!r}, which")


def _made(found: Any, told: str) -> Middleware:
    """Return an object of a class, or the object that is one already."""
    try:
        made = found() if isinstance(found, type) else found
    except Exception as error:
        raise SettingsError(f"{told} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(made, Middleware):
        raise SettingsError(f"{told} is no middleware: derive it from millpond.Middleware")
    return made


@cache
def _of_packages() -> tuple[Middleware, ...]:
    from importlib.metadata import entry_points

    return tuple(
        _made(each.load(), f"the entry point {each.name!r} of {each.dist.name if each.dist else 'a package'}")
        for each in sorted(entry_points(group=GROUP), key=lambda each: each.name)
    )


def add_headers(middleware: Sequence[Middleware], sending: Sending) -> Sending:
    """Return a task that is about to be sent, with the headers that middleware gives it."""
    for each in middleware:
        each.on_sending(sending)
    for name in sending.headers:
        if name in RESERVED:
            raise ValueError(
                f"{name!r} is a header of Celery's or Millpond's: name it otherwise, as in 'shop_{name}'"
            )
    return sending
