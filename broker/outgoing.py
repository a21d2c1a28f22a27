"""Compose the messages to be sent, as a stock client would have written them (message.py)."""

import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millpond.broker.header_times import format_eta
from millpond.broker.message import OWN, SHOWN_LENGTH, dump_json, new_id, process_origin

#: The third part of a body: the signatures that follow the task, of which there are none.
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

#: Headers of Celery's protocol 2 that have the same value in every message composed here.
_FIXED_HEADERS: dict[str, Any] = {
    "lang": "py",
    "shadow": None,
    "group": None,
    "group_index": None,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
    "retries": 0,
    "timelimit": (None, None),
}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that is ready to be published, with the fields that the publish script needs.

    The task may run from `due_ms` on (None: now), and is refused if it cannot start by `deadline_ms`; both
    are by the server's clock. `claim` is its unique key, taken for `claim_ms`, or for as long as the task
    lives (0). `payload` is the JSON that stock Celery would have put on the queue.
    """

    queue: str
    id: str
    payload: str
    priority: int = 0
    due_ms: int | None = None
    batch: str | None = None
    claim: str | None = None
    claim_ms: int = 0
    deadline_ms: int | None = None


def compose(
    kind: str,
    kwargs: Mapping[str, Any],
    *,
    queue: str,
    sent_at_ms: int,
    id: str | None = None,
    args: tuple[Any, ...] = (),
    shown: Mapping[str, Any] | None = None,
    priority: int = 0,
    due_ms: int | None = None,
    expires_ms: int | None = None,
    batch: str | None = None,
    after: Mapping[str, Any] | None = None,
    claim: str | None = None,
    claim_ms: int = 0,
    deadline_ms: int | None = None,
    parent_id: str | None = None,
    traceparent: str | None = None,
    headers: Mapping[str, Any] | None = None,
    ignore_result: bool = True,
) -> Outgoing:
    """Compose one message.

    `args` and `kwargs` must be JSON. `shown` is `kwargs` as logs and events show them (None: as they are).
    Times are ms since the epoch, by the server's clock. `parent_id` is the task whose handler sends this one.
    `after` describes the batch whose callback this is. `headers` are further headers, JSON, for the handler.
    `claim`, `claim_ms` and `deadline_ms` are those of `Outgoing`. Raises `ValueError` or `TypeError` if a
    value is not JSON.
    """
    id = id or new_id()
    all_headers = {
        **(headers or {}),
        **_task_headers(kind, id, args, kwargs if shown is None else shown),
        "eta": None if due_ms is None else format_eta(due_ms),
        "expires": None if expires_ms is None else format_eta(expires_ms),
        "parent_id": parent_id,
        "ignore_result": ignore_result,
        OWN: millpond_header(sent_at_ms, batch, after, None if claim_ms else claim),
    }
    if traceparent is not None:
        all_headers["traceparent"] = traceparent
    properties = {"correlation_id": id, "priority": priority}
    if expires_ms is not None:
        properties["expiration"] = str(max(0, expires_ms - sent_at_ms))
    payload = _dump_payload(all_headers, [args, kwargs, _EMBED], queue, properties)
    return Outgoing(queue, id, payload, priority, due_ms, batch, claim, claim_ms, deadline_ms)


def _task_headers(kind: str, id: str, args: tuple[Any, ...], shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that name a task and show its arguments, and those that are always the same."""
    return {
        **_FIXED_HEADERS,
        "task": kind,
        "id": id,
        "root_id": id,
        "argsrepr": repr(args),
        "kwargsrepr": repr(dict(shown))[:SHOWN_LENGTH],
        "origin": process_origin(os.getpid()),
    }


def _dump_payload(
    headers: Mapping[str, Any], body: list[Any], queue: str, properties: Mapping[str, Any]
) -> str:
    """Return the JSON of a message, in the format that kombu's Redis transport writes and reads."""
    return dump_json(
        {
            "body": b64encode(dump_json(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                **properties,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "body_encoding": "base64",
                "delivery_tag": new_id(),
            },
        }
    )


def millpond_header(
    sent_at_ms: int, batch: str | None, after: Mapping[str, Any] | None, once: str | None
) -> dict[str, Any]:
    """Return the value of the header with Millpond's own fields. A field that is None is left out."""
    fields = {"at": sent_at_ms, "batch": batch, "after": after, "once": once}
    return {name: value for name, value in fields.items() if value is not None}
