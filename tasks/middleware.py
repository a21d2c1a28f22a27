"""Middleware: code that runs around sending, around executing, on an outcome, on a worker's start and stop.

It also selects the tasks whose Celery events are sent, and adds to log lines.

A middleware overrides the methods it needs. The other methods cost nothing. It is named in the
setting `middleware`, as `module:Class`, or by an entry point of the group `millpond.middleware` of an
installed package. The first is the outermost: it sees a job first and an outcome last. Millpond's own use the
same methods and lie around these: `tasks/tracing.py`, `tasks/process/log_context.py`,
`tasks/process/log_redaction.py`, `worker/report/metering.py` and `worker/report/event_sampling.py`.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
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
    """A task that is about to be sent. Entries added to `headers` (JSON) travel with its message."""

    #: A contract, or for a task of a Celery application a `Call`: `kind`, `args` and `kwargs`.
    job: Any
    id: str
    queue: str
    batch: str | None = None
    #: The trace that the task continues, by the W3C's Trace Context.
    traceparent: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)


class Middleware:
    """Base of every middleware. Each method does nothing of its own."""

    def on_sending(self, sending: Sending) -> None:
        """Add headers to a task before it is sent. If this raises, the task is not sent.

        Called in the process that sends, for each task of a stream.
        """

    def on_sent(self, sending: Sending, error: Exception | None) -> None:
        """Note that a task was sent, or that it was refused with an error."""

    def around_executing(
        self, job: Any, context: "Context", call_next: Callable[[Any, "Context"], Any]
    ) -> Any:
        """Run one task. Return the result of `call_next`, and let its errors pass.

        `context.message` has the headers. Called in the slot: in its thread, or in its prefork child.
        """
        return call_next(job, context)

    def shows_events(self, delivery: "Delivery") -> bool:
        """True if the Celery events of a task are sent. Called when the task arrives, if anybody may listen.

        Called after the inner middleware, if all of them returned True. A failure is shown in any case.
        """
        del delivery
        return True

    def log_fields(self, context: "Context") -> Mapping[str, Any]:
        """Return fields for the JSON log lines that are written while a task runs."""
        del context
        return {}

    def redact(self, line: str, context: "Context") -> str:
        """Return a log line that was written while a task runs, without texts that must not be read there."""
        del context
        return line

    def on_outcome(self, delivery: "Delivery", outcome: "Outcome", seconds: float | None) -> None:
        """Note the outcome of a delivery, in the worker's process. `seconds` is the time it ran, or None."""

    def on_worker_start(self) -> None:
        """Prepare a worker process, or a prefork child, before it takes its first message."""

    def on_worker_stop(self) -> None:
        """Clean up as a worker process ends."""


class Hooks:
    """The methods that middleware overrides, bound, each in the order of its calls. They are compiled once.

    A task is seen by the outermost first, and its end by the innermost first.
    """

    def __init__(self, middleware: Sequence[Middleware] = ()) -> None:
        inwards = partial(_overriding_methods, middleware)
        outwards = partial(_overriding_methods, middleware[::-1])
        self.on_sending: tuple[Callable[[Sending], None], ...] = inwards("on_sending")
        self.on_sent: tuple[Callable[[Sending, Exception | None], None], ...] = outwards("on_sent")
        #: `execute` wraps the handler in each, the innermost first.
        self.around_executing: tuple[Callable[..., Any], ...] = outwards("around_executing")
        self.shows_events: tuple[Callable[[Delivery], bool], ...] = outwards("shows_events")
        self.log_fields: tuple[Callable[[Context], Mapping[str, Any]], ...] = outwards("log_fields")
        self.redact: tuple[Callable[[str, Context], str], ...] = outwards("redact")
        self.on_outcome: tuple[Callable[[Delivery, Outcome, float | None], None], ...]
        self.on_outcome = outwards("on_outcome")
        self.on_worker_start: tuple[Callable[[], None], ...] = inwards("on_worker_start")
        self.on_worker_stop: tuple[Callable[[], None], ...] = outwards("on_worker_stop")


def _overriding_methods(middleware: Sequence[Middleware], method: str) -> tuple[Any, ...]:
    """Return a method of each middleware that overrides it, bound."""
    unchanged = getattr(Middleware, method)
    return tuple(getattr(each, method) for each in middleware if getattr(type(each), method) is not unchanged)


def load_middleware(names: Iterable[str]) -> tuple[Middleware, ...]:
    """Return the middleware that the setting names, then that of installed packages.

    Returns the same objects at each call in a process. Raises `SettingsError` for any other name.
    """
    return (*(_load_one(name) for name in names), *_load_entry_points())


@cache
def _load_one(name: str, setting: str = "middleware") -> Middleware:
    """Return the middleware that a setting names as `module:Class`. Raises `SettingsError`."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise SettingsError(
            f"{setting} names {name!r}: write the module and the class, as in shop.tenants:Tenants"
        )
    import_modules([module], setting=setting)
    try:
        loaded = getattr(importlib.import_module(module), attribute)
    except AttributeError:
        raise SettingsError(f"{setting} names {name!r}, and {module} has no {attribute!r}") from None
    return _instantiate_middleware(loaded, f"{setting} names {name!r}, which")


def _instantiate_middleware(loaded: Any, subject: str) -> Middleware:
    """Return an object of a class, or the object that is one already."""
    try:
        made = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:
        raise SettingsError(f"{subject} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(made, Middleware):
        raise SettingsError(f"{subject} is no middleware: derive it from millpond.Middleware")
    return made


@cache
def _load_entry_points() -> tuple[Middleware, ...]:
    """Return the middleware that installed packages name by an entry point, in the order of their names."""
    from importlib.metadata import entry_points

    return tuple(
        _instantiate_middleware(
            each.load(), f"the entry point {each.name!r} of {each.dist.name if each.dist else 'a package'}"
        )
        for each in sorted(entry_points(group=GROUP), key=lambda each: each.name)
    )


def add_headers(on_sending: Iterable[Callable[[Sending], None]], sending: Sending) -> Sending:
    """Return a task that is about to be sent, with the headers that middleware gives it.

    Raises `ValueError` for a header that Celery or Millpond uses.
    """
    for hook in on_sending:
        hook(sending)
    for name in sending.headers:
        if name in RESERVED:
            raise ValueError(
                f"{name!r} is a header of Celery's or Millpond's: name it otherwise, as in 'shop_{name}'"
            )
    return sending
