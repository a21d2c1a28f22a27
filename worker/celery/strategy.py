"""Receive a delivery: make a request of it, notify the event listeners, pass it to the pool.

Celery's default strategy without the parts that the broker does now: a task with an ETA arrives when it is
due, and rate limits hold for the whole fleet in the fetch.
"""

import logging
from base64 import b64encode
from collections.abc import Callable
from json import dumps
from typing import Any

from celery import Celery, Task
from celery.app import trace
from celery.exceptions import InvalidTaskError
from celery.signals import task_received
from celery.utils.log import get_logger
from celery.worker.state import task_ready, task_reserved
from celery.worker.strategy import proto1_to_proto2
from kombu.exceptions import ContentDisallowed, DecodeError

from millpond.broker.consume.fetch_call import DUE_SOON_MS
from millpond.broker.delivery import Delivery
from millpond.broker.message import SHOWN_LENGTH, BadMessage, Message
from millpond.broker.outcomes import Delay
from millpond.tasks.contract import Contract, kinds
from millpond.tasks.redaction import hides_fields, redact, redact_args
from millpond.worker.celery.request import PondRequest, RequestContext

logger = get_logger("celery.worker.strategy")


def pond(task: Task, _app: Celery, consumer: Any) -> Callable[..., None]:
    """Return Celery's function that receives messages of one kind. Its `start` receives a delivery."""
    contract = kinds().get(task.name)
    secretive = contract if contract is not None and hides_fields(contract) else None
    revoked = consumer.controller.state.revoked
    process = RequestContext(consumer, task)
    callbacks, on_request = consumer.on_task_message, consumer.on_task_request
    level = _level_of_received(task)

    def start(delivery: Delivery) -> None:
        """Make a request of a delivery, announce it, and pass it to the pool."""
        request = PondRequest(delivery, task, process)
        if secretive is not None:
            _redact_arguments(request, secretive)
        if level is not None:
            _log_received(request, level)
        if (request.can_expire or request.id in revoked) and request.revoked():
            return
        if task_received.receivers:
            task_received.send(sender=consumer, request=request)
        if process.sends_events:
            request.send_received_event()
        else:
            request.is_quiet = True
        task_reserved(request)
        try:
            for callback in callbacks:
                callback(request)
            on_request(request)
        except Exception:
            task_ready(request)
            raise

    def receive(kombu_message: Any, body: Any, *_: Any) -> None:
        delivery = kombu_message.delivery
        if body is None or _is_due(kombu_message, delivery, body):
            start(delivery)

    receive.start = start  # type: ignore[attr-defined]
    return receive


def make_receiver(
    strategies: dict[str, Any],
    *,
    otherwise: Callable[[Delivery], None],
    dead_letter: Callable[[Delivery, str, object], None],
) -> Callable[[Delivery], None]:
    """Return the function that receives a delivery of any kind. `otherwise` receives unusual deliveries."""
    starts = {kind: getattr(strategy, "start", None) for kind, strategy in strategies.items()}

    def receive(delivery: Delivery) -> None:
        """Receive a delivery. A message that cannot be decoded or used is dead-lettered."""
        try:
            (starts.get(delivery.message.kind) or otherwise)(delivery)
        except BadMessage as error:
            dead_letter(delivery, error.reason, error)
        except (InvalidTaskError, ContentDisallowed) as error:
            dead_letter(delivery, "invalid message", error)
        except DecodeError as error:
            dead_letter(delivery, "cannot be decoded", error)

    return receive


def _level_of_received(task: Task) -> int | None:
    """Return the level at which the receipt of a task is logged, or None if that level is off.

    It is DEBUG for a task with a handler, INFO for a plain Celery task.
    """
    level = logging.DEBUG if hasattr(task, "handler") else logging.INFO
    return level if logger.isEnabledFor(level) else None


def _log_received(request: PondRequest, level: int) -> None:
    """Log the receipt of a task as Celery does."""
    about = {"id": request.id, "name": request.name, "args": request.argsrepr}
    about |= {"kwargs": request.kwargsrepr, "eta": request.delivery.message.headers.get("eta")}
    logger.log(level, trace.LOG_RECEIVED, about, extra={"data": about})


def _redact_arguments(request: PondRequest, contract: type[Contract]) -> None:
    """Redact the shown text of the arguments, because a stock client writes all of them into the headers."""
    try:
        args, kwargs, _embed = request.delivery.message.arguments
    except BadMessage as error:
        raise InvalidTaskError(str(error)) from error
    request.contract_with_secrets = contract
    request.show(redact_args(contract, args), repr(redact(contract, kwargs))[:SHOWN_LENGTH])


def _is_due(kombu_message: Any, delivery: Delivery, body: Any) -> bool:
    """Read a message of Celery's protocol 1, which the broker cannot. If it is not due, it waits in Redis."""
    arguments, headers, _decoded, _utc = proto1_to_proto2(kombu_message, body)
    written = dumps(arguments, default=str).encode()
    names = headers.keys() - {"args", "kwargs", "headers"}
    envelope = {
        "body": b64encode(written).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**(headers.get("headers") or {}), **{name: headers[name] for name in names}},
        "properties": {**kombu_message.properties, "body_encoding": "base64"},
    }
    delivery.message = Message.decode(dumps(envelope, default=str))
    delivery.due_ms = due_ms = delivery.message.due_ms
    if due_ms is None or due_ms <= delivery.now_ms() + DUE_SOON_MS:
        return True
    kombu_message.channel.settle(delivery, Delay(due_ms))
    return False
