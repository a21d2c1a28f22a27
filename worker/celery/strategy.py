"""Receive a message: make a request of it, tell the event listeners, pass it to the pool.

Celery's default strategy without what the broker does now: a task with an ETA arrives when it is due,
and rate limits hold for the whole fleet in the fetch.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from celery import Celery, Task, signals
from celery.exceptions import InvalidTaskError
from celery.utils.log import get_logger
from celery.worker.state import task_reserved
from celery.worker.strategy import hybrid_to_proto2, proto1_to_proto2
from kombu.exceptions import DecodeError

from millpond.broker.consume.fetch_call import DUE_SOON_MS
from millpond.broker.message import SHOWN_LENGTH
from millpond.broker.outcomes import Settlement
from millpond.broker.parsing import parse
from millpond.tasks.contract import Contract, kinds
from millpond.tasks.redaction import REDACTED, hides, redact, redact_args
from millpond.worker.celery.request import PondRequest

logger = get_logger("celery.worker.strategy")

#: What kombu marks a date, a UUID and the like with.
_OWN_TYPE = b"__type__"


def pond(task: Task, app: Celery, consumer: Any) -> Callable[..., None]:
    """Return the function that receives the messages of one kind."""
    eventer = consumer.event_dispatcher
    send_events = bool(eventer and eventer.enabled and task.send_events)
    contract = kinds().get(task.name)
    secretive = contract if contract is not None and hides(contract) else None
    makes = {"app": app, "hostname": consumer.hostname, "eventer": eventer, "task": task}
    revoked, sample = consumer.controller.state.revoked, app.sample
    utc, remembers = app.uses_utc_timezone(), app.conf.worker_deduplicate_successful_tasks

    def receive(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        body, headers, decoded, is_utc = _parts(message, body, utc)
        request = PondRequest(
            message,
            on_ack=ack,
            on_reject=reject,
            body=body,
            headers=headers,
            decoded=decoded,
            utc=is_utc,
            connection_errors=consumer.connection_errors,
            **makes,
        )
        _check(request)
        request.tag, request.holder = message.delivery_tag, message.channel.holder
        request.grouper, request.meter = consumer.grouper, consumer.meter
        request.settler, request.pull = consumer.settler, consumer.pull
        request.sample, request.remembers_successes = sample, remembers
        if secretive is not None:
            _hide(request, secretive)
        if request.eta is not None and _is_later(message, request.eta):
            return
        logger.debug("Task %s[%s] received", request.name, request.id)
        if (request.expires or request.id in revoked) and request.revoked():
            return
        signals.task_received.send(sender=consumer, request=request)
        if send_events:
            request.announce()
        task_reserved(request)
        for callback in callbacks:
            callback(request)
        consumer.on_task_request(request)

    return receive


def _parts(message: Any, body: Any, utc: bool) -> tuple[Any, Any, bool, bool]:
    """Return body, headers, whether the body is decoded and whether times are UTC, for both of Celery's
    protocols.

    The body is decoded here, once: what does not decode is buried before it takes a slot.
    """
    if body is not None:
        return proto1_to_proto2(message, body)  # type: ignore[no-any-return]
    decoded = _decoded(message)
    if "args" in decoded:
        return hybrid_to_proto2(message, decoded)  # type: ignore[no-any-return]
    args, kwargs, embed = decoded
    return (args, kwargs, embed), message.headers, True, utc


def _check(request: PondRequest) -> None:
    """Refuse what Celery would stumble over once the task has its slot, which would never be free again."""
    args, kwargs, limits = request._args, request._kwargs, request.time_limits
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        raise InvalidTaskError("its arguments must be a list and an object")
    if limits and not (len(limits) == 2 and all(isinstance(each, int | float | None) for each in limits)):
        raise InvalidTaskError(f"its time limits must be two numbers of seconds or null, not {limits!r:.80}")


def _decoded(message: Any) -> Any:
    """Decode a body; kombu does what is not plain JSON, or has types of its own in it."""
    body = message.body
    if message.content_type != "application/json" or not isinstance(body, bytes) or _OWN_TYPE in body:
        return message.payload
    try:
        return parse(body)
    except (ValueError, RecursionError) as error:
        raise DecodeError(str(error)) from error


def _is_later(message: Any, eta: datetime) -> bool:
    """Let a message of protocol 1, which the broker cannot read, wait in Redis until it is due."""
    own = message.headers.get("millpond")
    now_ms = int(time.time() * 1000) + int(own.get("clock_ms", 0) if isinstance(own, dict) else 0)
    due_ms = int(eta.timestamp() * 1000)
    if due_ms <= now_ms + DUE_SOON_MS:
        return False
    message.channel.settle(message.delivery_tag, Settlement("delay", due_ms=due_ms))
    return True


def _hide(request: PondRequest, contract: type[Contract]) -> None:
    """Redact what may be shown of the arguments; a stock client put them all into the headers."""
    kwargs = request._kwargs
    shown = repr(redact(contract, kwargs))[:SHOWN_LENGTH] if isinstance(kwargs, dict) else REDACTED
    request._kwargsrepr = request._request_dict["kwargsrepr"] = shown
    request._argsrepr = request._request_dict["argsrepr"] = redact_args(contract, request._args)
    request.secretive = contract
