"""Celery's remote control commands `scheduled` and `query_task`, with the delayed tasks, and `rate_limit`.

Delayed tasks wait in the broker. One of the processes of a queue replies for it, so that each task is listed
once. A rate limit by remote control would hold for each process by itself, so it is refused with a reason.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from celery.utils.functional import maybe_list
from celery.worker import control

from millpond.broker.consume.queue_lease import QueueLease
from millpond.broker.delivery import Delivery
from millpond.broker.header_times import format_eta
from millpond.broker.message import BadMessage, Message
from millpond.tasks.contract import contracts_by_kind
from millpond.tasks.redaction import hides_fields
from millpond.worker.celery.stock_tasks import MILLPOND_STRATEGY

#: The maximum of delayed tasks that are listed of a queue, the earliest due first.
MOST_LISTED = 1_000

_query_of_celery, _rate_limit_of_celery = control.query_task, control.rate_limit


def install() -> None:
    """Replace three of Celery's remote control commands in this process."""
    control.Panel.data["scheduled"] = scheduled
    control.Panel.data["query_task"] = query_task
    control.Panel.data["rate_limit"] = rate_limit


def rate_limit(state: Any, task_name: str, rate_limit: Any, **options: Any) -> dict[str, str]:
    """Refuse Celery's rate limit of a process for Millpond's tasks. Limits of other tasks are Celery's."""
    task = state.app.tasks.get(task_name)
    if task is not None and task.Strategy == MILLPOND_STRATEGY:
        return {"error": "a rate limit holds for the fleet: millpond queue set QUEUE --rate 50/s"}
    reply: dict[str, str] = _rate_limit_of_celery(state, task_name, rate_limit, **options)
    return reply


def scheduled(state: Any, **_: Any) -> list[dict[str, Any]]:
    """Return the delayed tasks of the queues for which this process replies."""
    return [
        {
            "eta": _describe_due(delivery.message, due_ms),
            "priority": 6,  # as in Celery's own reply, where it is the priority of a timer
            "request": _describe_request(delivery, state.consumer.hostname),
        }
        for delivery, due_ms in _delayed_requests(state.consumer)
    ]


def query_task(state: Any, ids: Any, **options: Any) -> dict[str, Any]:
    """Return, by id, the state and fields of the tasks among `ids` that this process knows."""
    requested = set(maybe_list(ids))
    states: dict[str, Any] = dict(_query_of_celery(state, list(requested), **options))
    for delivery, _due_ms in _delayed_requests(state.consumer):
        if delivery.message.id in requested - states.keys():
            states[delivery.message.id] = ("scheduled", _describe_request(delivery, state.consumer.hostname))
    return states


def _delayed_requests(consumer: Any) -> Iterator[tuple[Delivery, int]]:
    """Yield the delayed tasks of the queues for which this process replies, with their due times (ms)."""
    client = consumer.task_consumer.channel.store.client
    for lease in consumer.in_flight.leases.values():
        if not _is_first_process(client, lease):
            continue
        for entry, due_ms in client.zrange(lease.keys.delayed, 0, MOST_LISTED - 1, withscores=True):
            try:
                message = Message.decode(entry[1:])  # its priority is written before it
            except BadMessage:
                continue
            yield Delivery(message, lease.keys.queue, clock_ms=lease.clock_ms), int(due_ms)


def _is_first_process(client: Any, lease: QueueLease) -> bool:
    """True if the name of this process is the first, in alphabetical order, of the queue's consumers."""
    return bool(lease.consumer.encode() == min(client.zrange(lease.keys.consumers, 0, -1), default=b""))


def _describe_due(message: Message, due_ms: int) -> Any:
    """Return the ETA as the client wrote it, or the due time (ms) if that is another, as after a retry."""
    with suppress(BadMessage):
        if message.due_ms == due_ms:
            return message.headers["eta"]
    return format_eta(due_ms)


def _describe_request(delivery: Delivery, hostname: str) -> dict[str, Any]:
    """Return the fields by which Celery describes a request, without the secrets in its arguments."""
    message = delivery.message
    contract = contracts_by_kind().get(message.kind)
    args, kwargs = message.headers.get("argsrepr"), message.headers.get("kwargsrepr")
    if contract is None or not hides_fields(contract):
        with suppress(BadMessage):
            args, kwargs, _embed = message.arguments
    elif "at" not in message.own:  # a stock client does not know which fields are secret
        args = kwargs = "***"
    return {
        "id": message.id,
        "name": message.name,
        "args": args,
        "kwargs": kwargs,
        "type": message.kind,
        "hostname": hostname,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": {
            **(message.properties.get("delivery_info") or {}),
            "priority": message.properties.get("priority"),
            "redelivered": False,
        },
        "worker_pid": None,
    }
