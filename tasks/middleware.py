"""Middleware: code that runs around sending, around executing, on an outcome, on a worker's start and stop.

It also selects the tasks whose Celery events are sent, adds fields to JSON log lines, and redacts log lines.

A middleware overrides the methods it needs. The other methods cost nothing. The setting `middleware` names it
as `module:Class`, or an installed package does, by an entry point of the group `millpond.middleware`. The
first is the outermost: its code runs first for a job and last for an outcome. Millpond's own middleware is
outside of these: `tasks/tracing.py`, `tasks/process/log_middleware.py`, `worker/report/metering.py` and
`worker/report/event_sampling.py`.
"""

import importlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from itertools import chain
from typing import TYPE_CHECKING, Any

from millpond.tasks.errors import MiddlewareError, SettingsError
from millpond.tasks.middleware_checks import check_hooks
from millpond.tasks.module_loading import import_modules

if TYPE_CHECKING:
    from millpond.broker.delivery import Delivery
    from millpond.broker.outcomes import Outcome
    from millpond.tasks.context import Context


logger = logging.getLogger(__name__)

#: The group of entry points by which an installed package names middleware.
ENTRY_POINT_GROUP = "millpond.middleware"

#: Headers of Celery and Millpond, which middleware must not set.
RESERVED_HEADERS = frozenset(
    (
        *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit"),
        *("root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "stamps"),
        *("replaced_task_nesting", "stamped_headers", "millpond", "traceparent"),
    )
)


@dataclass(slots=True)
class Sending:
    """A task before it is sent. Middleware may add to `headers`: text -> a value that JSON can write."""

    #: A contract; for a task of a Celery application a `Call` with `kind`, `args` and `kwargs`.
    job: Any
    id: str
    queue: str
    batch: str | None = None
    #: The trace that the task continues, as W3C Trace Context writes it.
    traceparent: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)


class Middleware:
    """Base class of every middleware. Its own methods change nothing."""

    def on_sending(self, sending: Sending) -> None:
        """Add headers to a task before it is sent. If the hook raises, the task is not sent.

        The client calls it in its own process, for each task of a stream too.
        """

    def on_sent(self, sending: Sending, error: Exception | None) -> None:
        """Record that a task was sent (`error` is None), was refused, or that its sending failed (`error`).

        A task whose sending failed may have been accepted; `SendInterrupted` stands for a Ctrl-C meanwhile.
        If the hook raises, its error is logged, and the sender gets the same answer.
        """

    def around_executing(
        self, job: Any, context: "Context", call_next: Callable[[Any, "Context"], Any]
    ) -> Any:
        """Run one task: return the result of `call_next`, which runs the handler and the inner middleware.

        Any other value but None replaces the result. It may be returned without a call of `call_next`, and
        the handler does not run then. None stands for the result; without a call of `call_next`, None fails
        the task with `MiddlewareError`. An error that is caught here and not raised again is no failure.
        `context.message` has the headers. Called in the slot: in its thread, or in its prefork child.
        """
        return call_next(job, context)

    def shows_events(self, delivery: "Delivery") -> bool:
        """True if the Celery events of a task are sent. Called when the task arrives, if events are sent.

        Called after the inner middleware, if all of them returned True. A failure's event is always sent.
        """
        del delivery
        return True

    def log_fields(self, context: "Context") -> Mapping[str, Any]:
        """Return fields for the JSON log lines that are written while a task runs, and for that of its end.

        Called inside of `around_executing`, or with the context variables as they were at the handler's end.
        If the hook raises, the lines are written without its fields, and its first error is logged.
        """
        del context
        return {}

    def redact(self, line: str, context: "Context") -> str:
        """Return a log line of a running task without the texts that must not be in logs.

        If the hook raises, or returns no `str`, a note replaces the text of the line.
        """
        del context
        return line

    def on_outcome(self, delivery: "Delivery", outcome: "Outcome", seconds: float | None) -> None:
        """Record the outcome of a delivery, in the worker process. `seconds` is how long it ran, or None."""

    def on_worker_start(self) -> None:
        """Prepare a worker process, or a prefork child, before it takes its first message.

        If the hook raises, the process ends, and another is started.
        """

    def on_worker_stop(self) -> None:
        """Clean up before a worker process, or a prefork child, ends."""


class Hooks:
    """For each hook the bound methods of the middleware that overrides it, in the order of their calls.

    Hooks before an event are called from the outermost middleware on; hooks after it from the innermost on.
    """

    def __init__(self, middleware: Sequence[Middleware] = ()) -> None:
        inwards = partial(_overriding_methods, middleware)
        outwards = partial(_overriding_methods, middleware[::-1])
        self.on_sending: tuple[Callable[[Sending], None], ...] = inwards("on_sending")
        self.on_sent: tuple[Callable[[Sending, Exception | None], None], ...]
        self.on_sent = tuple(map(_log_errors, outwards("on_sent")))
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
    """Return the bound method of each middleware that overrides it."""
    unchanged = getattr(Middleware, method)
    overriding = (layer for layer in middleware if getattr(type(layer), method) is not unchanged)
    return tuple(getattr(layer, method) for layer in overriding)


def _log_errors(
    on_sent: Callable[[Sending, Exception | None], None],
) -> Callable[[Sending, Exception | None], None]:
    """Return a hook that logs its errors: a sender that got one would send a task again that was accepted."""

    @wraps(on_sent)
    def call_hook(sending: Sending, error: Exception | None) -> None:
        try:
            on_sent(sending, error)
        except Exception:
            result = "was sent" if error is None else f"was refused, or its sending failed ({error})"
            logger.exception("%s failed after task %s %s", hook_name(on_sent), sending.id, result)

    return call_hook


def wrap_call(hook: Callable[..., Any], call_inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a call of `around_executing` around `call_inner`, which calls the handler in its inner layers.

    It returns the value of the middleware, or the result of `call_next` if that is None. Raises
    `MiddlewareError` if it is None and `call_next` was not called: the handler has not run, and the task must
    not count as succeeded.
    """

    def call(job: Any, context: Any) -> Any:
        is_reached, result = False, None

        def call_next(job: Any, context: Any) -> Any:
            nonlocal is_reached, result
            is_reached = True
            result = call_inner(job, context)
            return result

        value = hook(job, context, call_next)
        if value is None and not is_reached:
            raise MiddlewareError(
                f"{hook_name(hook)} returned None and did not call call_next, so the handler did not "
                "run: return call_next(job, context), or a value in place of the handler's"
            )
        return result if value is None else value

    return call


def hook_name(hook: Callable[..., Any]) -> str:
    """Return a hook as errors and log lines name it: `Tenants.on_sending`."""
    name = getattr(hook, "__name__", "a hook")
    owner = getattr(hook, "__self__", None)
    if owner is None:
        return str(getattr(hook, "__qualname__", name))
    return f"{(owner if isinstance(owner, type) else type(owner)).__name__}.{name}"


#: The middleware of this process by the name in the settings; that of installed packages is under "".
_loaded: dict[str, tuple[Middleware, ...]] = {}


def load_middleware(names: Iterable[str]) -> tuple[Middleware, ...]:
    """Return the middleware of these names (`module:Class`), then that of installed packages.

    That of a package is left out if its class is named, too: each task would pass it twice. Every call in a
    process returns the same objects. Raises `SettingsError` for any other name, and for one that comes twice.
    """
    names = tuple(names)
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"middleware names {name!r} twice, and each task would pass it twice")
    named = tuple(chain.from_iterable(_load_once(name, partial(_load_named, name)) for name in names))
    classes = {type(each) for each in named}
    return (*named, *(each for each in _load_once("", _load_entry_points) if type(each) not in classes))


def _load_once(name: str, load: Callable[[], tuple[Middleware, ...]]) -> tuple[Middleware, ...]:
    """Return the middleware that was loaded first under a name; load it if there is none.

    Threads may load it at the same time, because a lock would be held while modules are imported.
    """
    if name not in _loaded:
        _loaded.setdefault(name, load())
    return _loaded[name]


def _load_named(name: str) -> tuple[Middleware]:
    """Return the middleware of a name, `module:Class` or `module:object`. Raises `SettingsError`."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise SettingsError(
            f"middleware names {name!r}: write the module and the class, as in shop.tenants:Tenants"
        )
    import_modules([module], setting="middleware")
    try:
        loaded = getattr(importlib.import_module(module), attribute)
    except AttributeError:
        raise SettingsError(f"middleware names {name!r}, and {module} has no {attribute!r}") from None
    return (_instantiate_middleware(loaded, f"middleware names {name!r}, which"),)


def _instantiate_middleware(loaded: Any, subject: str) -> Middleware:
    """Return an object of a loaded class, or the loaded object itself.

    Raises `SettingsError`, which begins with `subject`, if that is not possible, if it is no middleware or if
    its methods cannot be called.
    """
    try:
        middleware = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:
        raise SettingsError(f"{subject} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(middleware, Middleware):
        raise SettingsError(f"{subject} is no middleware: derive it from millpond.Middleware")
    check_hooks(middleware, Middleware, subject)
    return middleware


def _load_entry_points() -> tuple[Middleware, ...]:
    """Return the middleware of installed packages, in the order of the names of their entry points.

    Raises `SettingsError`.
    """
    from importlib.metadata import entry_points

    loaded = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        subject = f"the entry point {point.name!r} of {point.dist.name if point.dist else 'a package'}"
        try:
            middleware = point.load()
        except Exception as error:
            raise SettingsError(f"{subject} cannot be loaded: {type(error).__name__}: {error}") from error
        loaded.append(_instantiate_middleware(middleware, subject))
    return tuple(loaded)


def add_headers(on_sending: Iterable[Callable[[Sending], None]], sending: Sending) -> Sending:
    """Call the hooks, which add headers to the task, and return the task.

    Raises `ValueError` for a header that Celery or Millpond uses, and `TypeError` for a header that is no
    text, for a value that JSON cannot write, and for a hook that returns what it should add.
    """
    for hook in on_sending:
        returned: object = hook(sending)
        if returned is not None and returned is not sending:
            raise TypeError(
                f"{hook_name(hook)} returned a {type(returned).__name__}, which nothing reads: add headers "
                "to sending.headers"
            )
    if not isinstance(sending.headers, dict):
        raise TypeError(
            f"sending.headers is {sending.headers!r:.80}, and must stay a dict: add headers to it"
        )
    for name, value in sending.headers.items():
        if name in RESERVED_HEADERS:
            raise ValueError(
                f"{name!r} is a header of Celery's or Millpond's: name it otherwise, as in 'shop_{name}'"
            )
        if type(value) is not str or type(name) is not str:
            _check_header(name, value)
    return sending


def _check_header(name: object, value: object) -> None:
    """Raise `TypeError` unless the name of a header is text and its value the same after JSON."""
    if not isinstance(name, str):
        raise TypeError(f"the header {name!r:.80} has a name that is no text: write it as text")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"the header {name!r} cannot be written as JSON: {error}") from None
