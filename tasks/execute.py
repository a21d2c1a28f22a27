"""Run one delivery: decode and validate it, call the handler, and make an outcome of its value or error.

A worker's slot, a producer under `caller_runs` and a test call the same `execute`. This module uses neither
Celery nor Redis. Every error of a handler becomes an outcome.
"""

import json
import logging
import os
import random
import reprlib
import time
import traceback as tracebacks
from collections.abc import Callable, Sequence
from contextvars import Context as ContextVars
from contextvars import ContextVar, copy_context
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
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
from millpond.tasks.contract import Contract, job_from_fields
from millpond.tasks.errors import BadContract, Cancelled, FinalError, MillpondError, RetryLater
from millpond.tasks.handlers import Handler
from millpond.tasks.middleware import wrap_call
from millpond.tasks.redaction import redact, scrub_secrets

logger = logging.getLogger("millpond.tasks")

#: The maximum characters of a kept result, as JSON.
RESULT_LENGTH = 65_536

#: The maximum characters of an error's line, which is cut at its end, and of a traceback, cut at its start.
ERROR_LENGTH = 1_024
TRACEBACK_LENGTH = 8_192

#: The longest wait that an error may request, seconds, and the most doublings of a backoff.
_LONGEST_WAIT = 10 * 365 * 86_400.0
_DOUBLINGS = 64

_OUTCOMES = frozenset(
    (Succeeded, CancelledOutcome, Expired, Continued, Retry, Delay, Release, Redeliver, Requeue, DeadLetter)
)

#: The outcomes of errors of other libraries, as Celery's `Retry`. The program that runs tasks fills this.
outcomes_of_errors: dict[type[BaseException], Callable[[Any], Outcome]] = {}

#: The types of values of functions with `async` or `yield`. Their code has not run.
_NOT_RUN = frozenset((CoroutineType, GeneratorType, AsyncGeneratorType))

# Bound at the import: a handler may replace `os.getpid`.
_process_id = os.getpid
_encode_json = json.JSONEncoder(separators=(",", ":")).encode

_running_context: ContextVar[Context | None] = ContextVar("millpond_running", default=None)

#: Return the context of the task that this thread runs now. Return None if it runs no task.
running_context = _running_context.get


def execute(
    handler: Handler,
    delivery: Delivery,
    context: Context,
    around: Sequence[Callable[..., Any]] = (),
    *,
    keep_result: bool = False,
) -> Outcome:
    """Run a delivery and return its outcome. `around` is `Hooks.around_executing` of the middleware.

    The outcome has the handler's value as JSON for a task of a batch, and with `keep_result` for any task.
    `KeyboardInterrupt` and `SystemExit` are raised, because they may be meant for the program.
    """
    started_at, previous, pid = time.time(), _running_context.set(context), _process_id()
    inside: list[ContextVars] = []
    try:
        message = delivery.message
        args, kwargs, _embed = message.arguments
        job = message if handler.takes_message else validate_job(handler, args, kwargs)
        call = partial(_call_inside, handler.function, inside) if around else handler.function
        for hook in around:
            call = wrap_call(hook, call)
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
        classify = partial(classify_failure, handler, delivery, context, error, started_at=started_at)
        return inside[-1].run(classify) if inside else classify()
    else:
        if logger.isEnabledFor(logging.INFO) and not handler.takes_message:
            log = partial(_log_success, message, outcome, time.time() - started_at)
            inside[-1].run(log) if inside else log()
        return outcome
    finally:
        _running_context.reset(previous)


def _call_inside(function: Callable[..., Any], inside: list[ContextVars], job: Any, context: Context) -> Any:
    """Call a handler and return its value. Append the context variables as they are at its end to `inside`.

    The line about the end of the task is logged with these, because middleware around the handler resets its
    variables before that line is written.
    """
    try:
        return forked_child.call_ending_forks(function, job, context)
    finally:
        inside.append(copy_context())


def validate_job(handler: Handler, args: Sequence[Any], kwargs: dict[str, Any]) -> Contract:
    """Return the job: the handler's contract with these fields. Raises `BadContract`."""
    assert handler.contract is not None
    if args:
        raise BadContract(f"{handler.kind} takes its fields by name, and {len(args)} came by position")
    try:
        return handler.contract.model_validate(kwargs)
    except ValidationError:  # a strict contract reads JSON otherwise, or the fields are wrong
        return job_from_fields(handler.contract, kwargs)


def classify_failure(
    handler: Handler, delivery: Delivery, context: Context, error: BaseException, *, started_at: float
) -> Outcome:
    """Return the outcome of an error, and log it. `started_at` is the start of the run, in Unix seconds.

    This raises no error. An error whose own attributes raise is a dead letter with the name of its class.
    """
    try:
        return _outcome_of_error(handler, delivery, context, error, started_at)
    except BaseException as read_error:
        name = _error_name(error)
        return DeadLetter(name, f"{name}: (it cannot be read: {_error_name(read_error)})")


def _outcome_of_error(
    handler: Handler, delivery: Delivery, context: Context, error: BaseException, started_at: float
) -> Outcome:
    """Return the outcome of an error, and log it. `outcomes_of_errors` comes first."""
    for error_type, outcome_of in outcomes_of_errors.items():
        if isinstance(error, error_type):
            outcome = outcome_of(error)
            _log_end(logging.INFO, handler, delivery, "raised", f"{_error_name(error)}: {_error_text(error)}")
            return outcome
    redact_text = partial(scrub_secrets, contract=handler.contract_with_secrets, message=delivery.message)
    line = error_line(error, redact_text)
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
    trace = redact_text(_handler_traceback(error))
    description = "raised expected" if expected else "raised unexpected"
    _log_end(logging.INFO if expected else logging.ERROR, handler, delivery, description, line, error, trace)
    if isinstance(error, BadContract):
        return DeadLetter("bad contract", redact_text(_error_text(error)), expected=True)
    if isinstance(error, BadMessage):
        return DeadLetter(error.reason, _error_text(error)[:ERROR_LENGTH], expected=True)
    details = {
        "traceback": trace[-TRACEBACK_LENGTH:],
        "retries": delivery.message.retries,
        "worker": context.worker,
        "started_at": started_at,
    }
    return DeadLetter(_error_name(error), line, details, expected=expected)


def error_line(error: BaseException, redact_text: Callable[[str], str] = str) -> str:
    """Return an error in one line, the name of its class first. This raises no error of the error's methods.

    `redact_text` cuts secrets out of the whole text, because a secret may be longer than its first line.
    """
    return redact_text(f"{_error_name(error)}: {_error_text(error)}").splitlines()[0][:ERROR_LENGTH]


def backoff_seconds(handler: Handler, retries: int) -> float:
    """Return a random wait before the next run, after `retries` retries: exponential, with full jitter.

    Source: Brooker, "Exponential backoff and jitter", 2015.
    """
    exponential = handler.backoff_seconds * 2.0 ** min(retries, _DOUBLINGS)
    return random.uniform(0, min(handler.backoff_limit_seconds, exponential))


def _make_success(handler: Handler, delivery: Delivery, value: Any, *, keep: bool) -> Succeeded:
    """Return the success with the value as logs show it, and as JSON if it is kept.

    Raises `ValueError` for a kept value that is too long, the encoder's error for one that is no JSON, and
    `TypeError` for one of `_NOT_RUN`.
    """
    if type(value) in _NOT_RUN:
        if type(value) is CoroutineType:
            value.close()  # without Python's warning that it was never awaited
        raise TypeError(
            f"the handler, or a middleware around it, returned a {type(value).__name__}, whose code did not "
            "run: write an ordinary function, and call asyncio.run(…) in it"
        )
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    result = None
    if keep:
        result = _encode_json({"value": value})
        if len(result) > RESULT_LENGTH:
            raise ValueError(
                f"the result is {len(result)} characters of JSON and at most {RESULT_LENGTH} are kept: "
                "store it elsewhere and return where"
            )
    if value is None:
        return Succeeded(result)
    shown = repr(value) if type(value) in _PLAIN_TYPES else _show_value(value)
    if handler.contract_with_secrets is not None:
        shown = scrub_secrets(shown, handler.contract_with_secrets, delivery.message)
    return Succeeded(result, shown)


def _make_retry(
    handler: Handler, delivery: Delivery, context: Context, error: RetryLater, line: str
) -> Retry:
    """Return a retry with the message of the next run, due after the wait of the error or the backoff."""
    message = delivery.message
    _args, kwargs, _embed = message.arguments
    wait = error.after_seconds
    if wait is None or not 0 <= wait <= _LONGEST_WAIT:  # a wait that is too long, or NaN, is ignored
        wait = backoff_seconds(handler, message.retries)
    due_ms = delivery.now_ms() + int(wait * 1000)
    fields = redact(handler.contract, kwargs) if handler.contract is not None else kwargs
    next_message = message.for_next_run(
        due_ms=due_ms,
        retries=message.retries + 1,
        shown=repr(fields)[:SHOWN_LENGTH],
        previous_traceparent=context.state.get("traceparent"),
    )
    return Retry(str(next_message.text), due_ms, line)


def _error_name(error: BaseException) -> str:
    """Return the name of an error's class, also if its metaclass overrides `__name__`."""
    return str(type.__dict__["__name__"].__get__(type(error)))


def _error_text(error: BaseException) -> str:
    """Return the text of an error, or a note if its `__str__` raises."""
    try:
        return str.__str__(str(error))  # a plain `str`: a subclass may override its methods
    except BaseException as str_error:
        return f"(its message cannot be read: __str__ raised {_error_name(str_error)})"


def _handler_traceback(error: BaseException) -> str:
    """Return the formatted traceback of an error, without the frame of `execute`."""
    trace = error.__traceback__
    trace = (trace.tb_next if trace is not None else None) or trace
    try:
        return "".join(tracebacks.format_exception(type(error), error, trace))
    except BaseException:
        return "".join(tracebacks.format_tb(trace)) + error_line(error)


_bounded = reprlib.Repr()
_bounded.maxlevel, _bounded.maxdict, _bounded.maxlist, _bounded.maxtuple = 6, 100, 100, 100
_bounded.maxset, _bounded.maxfrozenset, _bounded.maxdeque, _bounded.maxarray = 100, 100, 100, 100
_bounded.maxstring = _bounded.maxother = _bounded.maxlong = SHOWN_LENGTH

#: Types whose `repr` is short.
_PLAIN_TYPES = frozenset((int, float, bool))


def _show_value(value: Any) -> str:
    """Return the `repr` of a value, cut to `SHOWN_LENGTH` characters, or a note if it raises."""
    try:
        return _bounded.repr(value)[:SHOWN_LENGTH]
    except Exception as repr_error:
        return f"<{type(value).__name__}, whose __repr__ raised {type(repr_error).__name__}>"


def _log_success(message: Message, outcome: Succeeded, seconds: float) -> None:
    # The value is redacted (`Succeeded.shown`), and nothing else in the line comes from the task.
    extra = {"data": {"id": message.id, "name": message.name}, "is_redacted": True}
    values = (message.name, message.id, seconds, outcome.shown)
    logger.info("Task %s[%s] succeeded in %.6fs: %s", *values, extra=extra)


def _log_end(
    level: int,
    handler: Handler,
    delivery: Delivery,
    description: str,
    line: str,
    error: BaseException | None = None,
    trace: str = "",
) -> None:
    """Log the end of a run in Celery's words and without secrets; at ERROR with the traceback."""
    if handler.takes_message or not logger.isEnabledFor(level):
        return
    message = delivery.message
    text, exc_info = f"{description}: {line}", error if level >= logging.ERROR else None
    if exc_info is not None and handler.contract_with_secrets is not None:
        text, exc_info = f"{text}\n{trace}", None  # a formatter would print the secrets in the traceback
    extra = {"data": {"id": message.id, "name": message.name}}
    logger.log(level, "Task %s[%s] %s", message.name, message.id, text, exc_info=exc_info, extra=extra)
