"""Receive a message: make a request of it, tell the event listeners, pass it to the pool.

Celery's default strategy without what the broker does now: a task with an ETA arrives when it is due,
and rate limits hold for the whole fleet in the fetch.
"""

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from celery import Celery, Task, signals
from celery.utils.log import get_logger
from celery.worker.state import task_reserved
from celery.worker.strategy import proto1_to_proto2

from millpond.broker.consume.fetch_call import DUE_SOON_MS
from millpond.broker.delivery import Delivery
from millpond.broker.message import Message
from millpond.broker.outcomes import Delay
from millpond.tasks.contract import kinds
from millpond.tasks.middleware import overriding
from millpond.tasks.redaction import hides
from millpond.worker.celery.request import PondRequest, Process

logger = get_logger("celery.worker.strategy")


def pond(task: Task, app: Celery, consumer: Any) -> Callable[..., None]:
    """Return the function that receives the messages of one kind."""
    contract = kinds().get(task.name)
    task.secretive = contract if contract is not None and hides(contract) else None
    eventer, revoked = consumer.event_dispatcher, consumer.controller.state.revoked
    process = Process(
        app=app,
        hostname=consumer.hostname,
        eventer=eventer,
        in_flight=consumer.holder,
        completer=consumer.settler,
        chunks=consumer.grouper,
        meter=consumer.meter,
        sample=app.sample,
        threads=consumer.pull,
        sends_events=bool(eventer and eventer.enabled and task.send_events),
        remembers_successes=app.conf.worker_deduplicate_successful_tasks,
        connection_errors=consumer.connection_errors,
        on_outcome=overriding(app.middleware, "on_outcome"),
    )

    def receive(kombu_message: Any, body: Any, _ack: Any, _reject: Any, callbacks: Any) -> None:
        delivery: Delivery = kombu_message.delivery
        if body is not None and _is_later(kombu_message, delivery, body):
            return
        request = PondRequest(delivery, kombu_message, task, process)
        logger.debug("Task %s[%s] received", request.name, request.id)
        if (request._expires or request.id in revoked) and request.revoked():
            return
        if signals.task_received.receivers:
            signals.task_received.send(sender=consumer, request=request)
        if process.sends_events:
            request.announce()
        task_reserved(request)
        for callback in callbacks:
            callback(request)
        consumer.on_task_request(request)

    return receive


def _is_later(kombu_message: Any, delivery: Delivery, body: Any) -> bool:
    """Read a message of Celery's protocol 1, which the broker cannot; if it is not due, it waits in Redis."""
    arguments, headers, _decoded, _utc = proto1_to_proto2(kombu_message, body)
    written = json.dumps(arguments, default=str).encode()
    names = headers.keys() - {"args", "kwargs", "headers"}
    envelope = {
        "body": b64encode(written).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**(headers.get("headers") or {}), **{name: headers[name] for name in names}},
        "properties": {**kombu_message.properties, "body_encoding": "base64"},
    }
    text = json.dumps(envelope, default=str)
    delivery.message = Message.decode(text)
    delivery.due_ms = due_ms = delivery.message.due_ms
    if due_ms is None or due_ms <= delivery.now_ms() + DUE_SOON_MS:
        return False
    kombu_message.channel.settle(delivery, Delay(due_ms))
    return True
