"""Receive a delivery: make a request of it, send the event of its receipt, pass it to the pool.

This is Celery's default strategy without the parts that the broker does here: it keeps a task with an ETA
until it is due, and it holds rate limits for the whole fleet.
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
from millpond.tasks.contract import Contract, contracts_by_kind
from millpond.tasks.redaction import hides_fields, redact, redact_args
from millpond.worker.celery.kind_services import KindServices
from millpond.worker.celery.request import PondRequest

logger = get_logger("celery.worker.strategy")


def millpond_strategy(task: Task, _app: Celery, consumer: Any) -> Callable[..., None]:
    """Return the function with which Celery receives messages of one kind.

    Its attribute `start` is the function that receives a delivery, which is no message of kombu's.
    """
    start = _make_start(task, consumer)

    def receive(kombu_message: Any, body: Any, *_: Any) -> None:
        """Receive a message of kombu's, or delay it if it is one of protocol 1 that is not due.

        `body` is None except for protocol 1, which kombu decodes. The broker cannot read the ETA of such a
        message; it keeps any other message until it is due. Celery's callbacks to acknowledge and to reject a
        message are not used: a request settles its delivery.
        """
        delivery = kombu_message.delivery
        if body is not None:
            _convert_protocol_1(kombu_message, delivery, body)
            due_ms = delivery.due_ms
            if due_ms is not None and due_ms > delivery.now_ms() + DUE_SOON_MS:
                kombu_message.channel.settle(delivery, Delay(due_ms))
                return
        start(delivery)

    receive.start = start  # type: ignore[attr-defined]
    return receive


def _make_start(task: Task, consumer: Any) -> Callable[[Delivery], None]:
    """Return the function that receives the deliveries of one kind."""
    contract = contracts_by_kind().get(task.name)
    contract_with_secrets = contract if contract is not None and hides_fields(contract) else None
    revoked = consumer.controller.state.revoked
    services = KindServices(consumer, task)
    callbacks, on_request = consumer.on_task_message, consumer.on_task_request
    level = _level_of_received(task)

    def start(delivery: Delivery) -> None:
        """Settle the task if it was revoked or has expired, else pass it to the pool."""
        request = PondRequest(delivery, task, services)
        if contract_with_secrets is not None:
            _redact_arguments(request, contract_with_secrets)
        if level is not None:
            _log_received(request, level)
        if (request.can_expire or request.id in revoked) and request.revoked():
            return
        if task_received.receivers:
            task_received.send(sender=consumer, request=request)
        if services.sends_events:
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

    return start


def make_receiver(
    strategies: dict[str, Any],
    *,
    otherwise: Callable[[Delivery], None],
    dead_letter: Callable[[Delivery, str, object], None],
) -> Callable[[Delivery], None]:
    """Return the function that receives a delivery of any kind.

    `otherwise` receives a delivery whose kind has no strategy of Millpond's. `dead_letter` is called with the
    delivery, the reason and the error if its message cannot be used.
    """
    starts = {kind: getattr(strategy, "start", None) for kind, strategy in strategies.items()}

    def receive(delivery: Delivery) -> None:
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
    """Return the level at which the receipt of a kind's tasks is logged, or None if that level is off.

    It is DEBUG for tasks with a handler, INFO for plain Celery tasks.
    """
    level = logging.DEBUG if hasattr(task, "handler") else logging.INFO
    return level if logger.isEnabledFor(level) else None


def _log_received(request: PondRequest, level: int) -> None:
    """Log the receipt of a task as Celery does."""
    fields = {"id": request.id, "name": request.name, "args": request.argsrepr}
    fields |= {"kwargs": request.kwargsrepr, "eta": request.delivery.message.headers.get("eta")}
    logger.log(level, trace.LOG_RECEIVED, fields, extra={"data": fields})


def _redact_arguments(request: PondRequest, contract: type[Contract]) -> None:
    """Set the texts that logs and events show of the arguments, without secret fields.

    The texts in the headers are not used: a stock client writes all arguments there. Raises
    `InvalidTaskError` if the arguments cannot be read.
    """
    try:
        args, kwargs, _embed = request.delivery.message.arguments
    except BadMessage as error:
        raise InvalidTaskError(str(error)) from error
    request.contract_with_secrets = contract
    request.show_arguments(redact_args(contract, args), repr(redact(contract, kwargs))[:SHOWN_LENGTH])


def _convert_protocol_1(kombu_message: Any, delivery: Delivery, body: Any) -> None:
    """Replace the message of a delivery, of Celery's protocol 1, by one of protocol 2. Sets `due_ms` too."""
    arguments, headers, _decoded, _utc = proto1_to_proto2(kombu_message, body)
    encoded_body = dumps(arguments, default=str).encode()
    names = headers.keys() - {"args", "kwargs", "headers"}
    envelope = {
        "body": b64encode(encoded_body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**(headers.get("headers") or {}), **{name: headers[name] for name in names}},
        "properties": {**kombu_message.properties, "body_encoding": "base64"},
    }
    delivery.message = Message.decode(dumps(envelope, default=str))
    delivery.due_ms = delivery.message.due_ms
