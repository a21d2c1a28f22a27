"""Run one delivery: decode, validate, call the handler, classify its end, encode its value.

A worker's slot, a producer under `caller_runs` and a test call the same `execute`. It knows neither Celery
nor Redis. Every error of a handler becomes an outcome: one delivery, one end.
"""

import json
import logging
import os
import random
import reprlib
import time
import traceback as tracebacks
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError

from millpond.broker.delivery import Delivery
from millpond.broker.message import SHOWN_LENGTH, BadMessage, Message
from millpond.broker.outcomes import Cancelled as CancelledOutcome
from millpond.broker.outcomes import (
    Continued,
    DeadLetter,
    Delay,
    Expired,
    Outcome,
    Redeliver,
    Release,
    Requeue,
    Retry,
    Succeeded,
)
from millpond.tasks import forked_child
from millpond.tasks.context import Context
from millpond.tasks.contract import Contract, read_fields
from millpond.tasks.errors import BadContract, Cancelled, FinalError, MillpondError, RetryLater
from millpond.tasks.handlers import Handler
from millpond.tasks.redaction import redact, scrub, secrets_in

logger = logging.getLogger("millpond.tasks")

#: A result is kept up to this many characters of JSON.
RESULT_LENGTH = 65_536

#: The maximum characters of an error's one line, and of a traceback, whose end is kept.
ERROR_LENGTH = 1_024
TRACEBACK_LENGTH = 8_192

#: The longest wait that an error may request, and how often the backoff doubles: a float has a maximum.
_LONGEST_WAIT = 10 * 365 * 86_400.0
_DOUBLINGS = 64

_OUTCOMES = frozenset(
    (Succeeded, CancelledOutcome, Expired, Continued, Retry, Delay, Release, Redeliver, Requeue, DeadLetter)
)

#: Errors of other libraries with an outcome of their own. The program that runs tasks adds them.
outcomes_of_errors: dict[type[BaseException], Callable[[Any], Outcome]] = {}

# Bound here: a handler may leave another under this name.
_process_id = os.getpid
_write = json.JSONEncoder(separators=(",", ":")).encode

_running: ContextVar[Context | None] = ContextVar("millpond_running", default=None)


#: Return the context of the task that this thread runs now; None if it runs no task.
running = _running.get


def execute(
    handler: Handler,
    delivery: Delivery,
    context: Context,
    around: Sequence[Callable[..., Any]] = (),
    *,
    keep_result: bool = False,
) -> Outcome:
    """Run a delivery and return how it ended. `around` is `Hooks.around_executing` of the middleware.

    The value is kept as JSON for a task of a batch, and with `keep_result` for any.
    Raises `KeyboardInterrupt` and `SystemExit`, which may be meant for the program: the caller decides.
    """
    began, before, pid = time.time(), _running.set(context), _process_id()
    try:
        message = delivery.message
        args, kwargs, _embed = message.arguments
        job = message if handler.takes_message else validate_job(handler, args, kwargs)
        call = handler.function
        if around:
            call = partial(forked_child.call_without_fork, call)
            for hook in around:
                call = partial(hook, call_next=call)
        value = call(job, context)
        if _process_id() != pid:
            forked_child.end_child()
        if type(value) in _OUTCOMES:
            return value  # type: ignore[no-any-return]
        outcome = _make_success(handler, delivery, value, keep=keep_result or context.batch is not None)
    except BaseException as error:
        if _process_id() != pid:
            forked_child.end_child(error)
        if issubclass(type(error), KeyboardInterrupt | SystemExit):  # `isinstance` calls the error itself
            raise
        return classify_failure(handler, delivery, context, error, began=began)
    finally:
        _running.reset(before)
    if logger.isEnabledFor(logging.INFO) and not handler.takes_message:
        _log_success(message, outcome, time.time() - began)
    return outcome


def validate_job(handler: Handler, args: Sequence[Any], kwargs: dict[str, Any]) -> Contract:
    """Return the contract with these fields. Raises `BadContract`."""
    assert handler.contract is not None
    if args:
        raise BadContract(f"{handler.kind} takes its fields by name, and {len(args)} came by position")
    try:
        return handler.contract.model_validate(kwargs)
    except ValidationError:  # a strict contract reads JSON otherwise, or the fields are wrong
        return read_fields(handler.contract, kwargs)


def classify_failure(
    handler: Handler, delivery: Delivery, context: Context, error: BaseException, *, began: float
) -> Outcome:
    """Classify an error: return its outcome. `began` is the start of the handler, seconds.

    An error whose own attributes raise counts as a failure, by its name: no error reaches the slot.
    """
    try:
        return _outcome_of_error(handler, delivery, context, error, began)
    except BaseException as unsaid:
        name = _error_name(error)
        return DeadLetter(name, f"{name}: (it cannot be read: {_error_name(unsaid)})")


def _outcome_of_error(
    handler: Handler, delivery: Delivery, context: Context, error: BaseException, began: float
) -> Outcome:
    """Return the outcome for an error, and log it: retry, cancelled, or dead letter."""
    for error_type, outcome_of in outcomes_of_errors.items():
        if isinstance(error, error_type):
            outcome = outcome_of(error)
            _log_end(logging.INFO, handler, delivery, "raised", f"{_error_name(error)}: {_error_text(error)}")
            return outcome
    line = error_line(error, partial(_cut_secrets, handler, delivery))
    if isinstance(error, RetryLater) and delivery.message.retries < handler.retries:
        _log_end(logging.INFO, handler, delivery, "retry", line)
        return _make_retry(handler, delivery, context, error, line)
    if isinstance(error, Cancelled):
        _log_end(logging.INFO, handler, delivery, "cancelled", line)
        return CancelledOutcome(line)
    if isinstance(error, SystemExit):
        error = FinalError(f"the handler called sys.exit({error.code!r}); a handler returns or raises")
        line = error_line(error)
    expected = isinstance(error, MillpondError | BadMessage)
    trace = _cut_secrets(handler, delivery, _handler_traceback(error))
    description = "raised expected" if expected else "raised unexpected"
    _log_end(logging.INFO if expected else logging.ERROR, handler, delivery, description, line, error, trace)
    if isinstance(error, BadContract):
        return DeadLetter("bad contract", _cut_secrets(handler, delivery, _error_text(error)), expected=True)
    if isinstance(error, BadMessage):
        return DeadLetter(error.reason, _error_text(error)[:ERROR_LENGTH], expected=True)
    details = {
        "traceback": trace[-TRACEBACK_LENGTH:],
        "retries": delivery.message.retries,
        "worker": context.worker,
        "started_at": began,
    }
    return DeadLetter(_error_name(error), line, details, expected=expected)


def error_line(error: BaseException, clean: Callable[[str], str] = str) -> str:
    """Return an error in one line, by its own name, even if its methods raise.

    `clean` cuts secrets out of the whole, because a secret may be longer than a line.
    """
    return clean(f"{_error_name(error)}: {_error_text(error)}").splitlines()[0][:ERROR_LENGTH]


def backoff_seconds(handler: Handler, retries: int) -> float:
    """Draw the wait before the next run: exponential, with full jitter.

    Source: Brooker, "Exponential backoff and jitter", 2015.
    """
    return random.uniform(
        0, min(handler.backoff_limit_seconds, handler.backoff_seconds * 2.0 ** min(retries, _DOUBLINGS))
    )


def _make_success(handler: Handler, delivery: Delivery, value: Any, *, keep: bool) -> Succeeded:
    """Encode a value: as JSON if it is kept, and as it may be shown."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    result = None
    if keep:
        result = _write({"value": value})
        if len(result) > RESULT_LENGTH:
            raise ValueError(
                f"the result is {len(result)} characters of JSON and at most {RESULT_LENGTH} are kept: "
                "store it elsewhere and return where"
            )
    if value is None:
        return Succeeded(result)
    shown = repr(value) if type(value) in _PLAIN else _show_value(value)
    return Succeeded(
        result, shown if handler.contract_with_secrets is None else _cut_secrets(handler, delivery, shown)
    )


def _make_retry(
    handler: Handler, delivery: Delivery, context: Context, error: RetryLater, line: str
) -> Retry:
    """Return a retry: the message of the next run, due after the wait of the error or of the backoff."""
    message = delivery.message
    _args, kwargs, _embed = message.arguments
    wait = error.after_seconds
    if wait is None or not 0 <= wait <= _LONGEST_WAIT:  # no time is beyond that, and NaN is none
        wait = backoff_seconds(handler, message.retries)
    due_ms = delivery.now_ms() + int(wait * 1000)
    fields = redact(handler.contract, kwargs) if handler.contract is not None else kwargs
    again = message.for_next_run(
        due_ms=due_ms,
        retries=message.retries + 1,
        shown=repr(fields)[:SHOWN_LENGTH],
        previous_traceparent=context.state.get("traceparent"),
    )
    return Retry(str(again.text), due_ms, line)


def _cut_secrets(handler: Handler, delivery: Delivery, text: str) -> str:
    """Cut the secrets of a task out of a text."""
    if handler.contract_with_secrets is None:
        return text
    try:
        args, kwargs, _embed = delivery.message.arguments
    except BadMessage:
        return text
    return scrub(text, secrets_in(handler.contract_with_secrets, args, kwargs))


def _error_name(error: BaseException) -> str:
    """Return the name of an error's class, even if its metaclass gives another name."""
    return str(type.__dict__["__name__"].__get__(type(error)))


def _error_text(error: BaseException) -> str:
    """Return the message of an error, or a note if the message cannot be read."""
    try:
        return str.__str__(str(error))  # a plain text: a subclass may have methods of its own
    except BaseException as unsaid:
        return f"(its message cannot be read: __str__ raised {_error_name(unsaid)})"


def _handler_traceback(error: BaseException) -> str:
    """Return the traceback of an error, from the handler on."""
    trace = error.__traceback__
    inner = trace.tb_next if trace is not None else None
    try:
        return "".join(tracebacks.format_exception(type(error), error, inner or trace))
    except BaseException:
        return "".join(tracebacks.format_tb(inner or trace)) + error_line(error)


_short = reprlib.Repr()
_short.maxlevel, _short.maxdict, _short.maxlist, _short.maxtuple = 6, 100, 100, 100
_short.maxset, _short.maxfrozenset, _short.maxdeque, _short.maxarray = 100, 100, 100, 100
_short.maxstring = _short.maxother = _short.maxlong = SHOWN_LENGTH


_PLAIN = frozenset((int, float, bool))


def _show_value(value: Any) -> str:
    """Return a value as logs and events show it, cut to length."""
    try:
        return _short.repr(value)[:SHOWN_LENGTH]
    except Exception as unsaid:
        return f"<{type(value).__name__}, whose __repr__ raised {type(unsaid).__name__}>"


def _log_success(message: Message, outcome: Succeeded, seconds: float) -> None:
    about = {"data": {"id": message.id, "name": message.name}}
    values = (message.name, message.id, seconds, outcome.shown)
    logger.info("Task %s[%s] succeeded in %.6fs: %s", *values, extra=about)


def _log_end(
    level: int,
    handler: Handler,
    delivery: Delivery,
    description: str,
    line: str,
    error: BaseException | None = None,
    trace: str = "",
) -> None:
    """Log how a run ended, with Celery's words and without secrets."""
    if handler.takes_message or not logger.isEnabledFor(level):
        return
    message = delivery.message
    text, more = f"{description}: {line}", error if level >= logging.ERROR else None
    if (
        more is not None and handler.contract_with_secrets is not None
    ):  # a formatter would print them in the traceback
        text, more = f"{text}\n{trace}", None
    about = {"data": {"id": message.id, "name": message.name}}
    logger.log(level, "Task %s[%s] %s", message.name, message.id, text, exc_info=more, extra=about)
