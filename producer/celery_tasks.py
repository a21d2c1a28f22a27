"""Send the tasks of a Celery application by Millpond's client: with its options, into its batches.

A signature is made a message by Celery itself (broker/celery/signatures.py). A `Call` is
too, if the settings name the application. Otherwise it is composed here, as JSON.
"""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from millpond.broker.header_times import format_eta, parse_eta_ms
from millpond.broker.message import OWN, Outgoing, compose, millpond_header
from millpond.producer.message import Call, Message
from millpond.tasks.errors import BadContract, UnknownQueue

if TYPE_CHECKING:
    from millpond.broker.celery.signatures import SignatureMessage

_write = json.JSONEncoder(separators=(",", ":")).encode


def is_celery_task(item: Any) -> bool:
    """True if the value is a call or a signature, also a signature that was read from JSON."""
    return isinstance(item, Call) or (isinstance(item, dict) and "subtask_type" in item)


def call_of(item: Any) -> Call:
    """Return a signature as a call, as middleware sees it."""
    if isinstance(item, Call):
        return item
    kwargs = {} if item["subtask_type"] else item["kwargs"]  # those of a chain are its tasks
    return Call(item["task"], *item["args"], **kwargs)


def compose_celery_task(
    message: Message,
    *,
    id: str,
    now_ms: int,
    app: str | None,
    batch: str | None = None,
    after: Mapping[str, Any] | None = None,
    more_headers: Callable[[str, str], Mapping[str, Any]] = lambda _queue, _id: {},
) -> Outgoing:
    """Compose the message of a Celery task. `app` is the application that the settings name.

    `more_headers` returns further headers, once the queue and the id are known. A frozen signature has its
    own id. A chain has the id of its first task.

    Raises `UnknownQueue`, `BadContract`, `SettingsError`, and Celery's errors.
    """
    item: Any = message.contract
    if isinstance(item, Call):
        if app is None:
            return _compose_by_name(
                message, item, id=id, now_ms=now_ms, batch=batch, after=after, more_headers=more_headers
            )
        from millpond.tasks.celery_application import load_app

        item = load_app(app).signature(item.kind, item.args, item.kwargs)
    return _with_options(message, _compose_with_celery(message, item, id), now_ms, batch, after, more_headers)


def _with_options(
    message: Message,
    composed: "SignatureMessage",
    now_ms: int,
    batch: str | None,
    after: Mapping[str, Any] | None,
    more_headers: Callable[[str, str], Mapping[str, Any]],
) -> Outgoing:
    """Return a message that Celery made, with the options and fields that Celery does not know."""
    due_ms, expires_ms, deadline_ms = message.epoch_times(now_ms)
    headers = composed.envelope["headers"]
    headers.update(more_headers(composed.queue, headers["id"]))
    headers[OWN] = millpond_header(now_ms, batch, after, None if message.claim_ms else message.once)
    if due_ms is not None:
        headers["eta"] = format_eta(due_ms)
    if expires_ms is not None:
        headers["expires"] = format_eta(expires_ms)
    return Outgoing(
        composed.queue,
        str(headers["id"]),
        _write(composed.envelope),
        int(composed.envelope["properties"].get("priority") or 0),
        due_ms if due_ms is not None else parse_eta_ms(headers.get("eta")),
        batch,
        message.once,
        message.claim_ms,
        deadline_ms,
    )


def _compose_with_celery(message: Message, item: Any, id: str) -> "SignatureMessage":
    """Return the message that Celery makes of a signature, with the options that are given here."""
    from millpond.broker.celery import signatures

    options: dict[str, Any] = {}
    if message.id is not None or (item["subtask_type"] is None and "task_id" not in item["options"]):
        options["task_id"] = id
    if message.queue is not None:
        options["queue"] = message.queue
    if message.priority:
        options["priority"] = message.priority
    return signatures.message_of_signature(signatures.signature_of(item), options)


def _compose_by_name(
    message: Message,
    call: Call,
    *,
    id: str,
    now_ms: int,
    batch: str | None,
    after: Mapping[str, Any] | None,
    more_headers: Callable[[str, str], Mapping[str, Any]],
) -> Outgoing:
    """Compose the message of a task by its name.

    Raises `UnknownQueue`, and `BadContract` for other than JSON.
    """
    if message.queue is None:
        raise UnknownQueue(
            f"the queue of {call.kind} is not known here: give queue=, send its signature, or name the "
            'application in millpond.toml, as in app = "proj"'
        )
    due_ms, expires_ms, deadline_ms = message.epoch_times(now_ms)
    try:
        return compose(
            call.kind,
            call.kwargs,
            args=call.args,
            queue=message.queue,
            sent_at_ms=now_ms,
            id=id,
            priority=message.priority,
            due_ms=due_ms,
            expires_ms=expires_ms,
            deadline_ms=deadline_ms,
            batch=batch,
            after=after,
            claim=message.once,
            claim_ms=message.claim_ms,
            headers=more_headers(message.queue, id),
            ignore_result=False,
        )
    except (TypeError, ValueError) as error:
        raise BadContract(f"the arguments of {call.kind} cannot be written as JSON: {error}") from None
