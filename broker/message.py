"""Compose messages: Celery's protocol 2 in kombu's envelope, as a stock client would have written them.

Millpond's own facts travel in one header, `millpond`: when the message was sent (`at`, ms by the
server's clock), its `batch`, and the batch that it follows (`after`). Source: Celery's documentation,
"Message Protocol", version 2; kombu's virtual transports.
"""

import json
import os
import socket
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from millpond.broker.identity import new_id

#: What is shown of arguments in events, logs and dead letters is cut to this many characters.
SHOWN_LENGTH = 1024

_encode = json.JSONEncoder(separators=(",", ":")).encode

_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Hold a message ready to be published, and what the publish script must know of it.

    `due_ms` is the server's time from which it may run (None: now), `deadline_ms` that by which it must
    have started. `claim` is the name under which it is sent only once: for `claim_ms`, or for as long as
    the task lives (0). `payload` is what stock Celery would have put on the queue.
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
    time_limits: tuple[float | None, float | None] = (None, None),
    batch: str | None = None,
    after: Mapping[str, Any] | None = None,
    claim: str | None = None,
    claim_ms: int = 0,
    deadline_ms: int | None = None,
    retries: int = 0,
    root_id: str | None = None,
    parent_id: str | None = None,
    traceparent: str | None = None,
    link: str | None = None,
) -> Outgoing:
    """Compose one message.

    `kwargs` must be JSON; `shown` is what may be shown of them (default: all). Times are ms since the
    epoch, by the server's clock. `time_limits` are (hard, soft) seconds. `after` tells of the batch that
    the task follows.
    """
    id = id or new_id()
    body = _encode([args, kwargs, _EMBED]).encode()
    own: dict[str, Any] = {"at": sent_at_ms}
    if batch is not None:
        own["batch"] = batch
    if after is not None:
        own["after"] = after
    if claim is not None and not claim_ms:
        own["once"] = claim
    if link is not None:
        own["link"] = link
    headers = {
        "lang": "py",
        "task": kind,
        "id": id,
        "shadow": None,
        "eta": _iso(due_ms),
        "expires": _iso(expires_ms),
        "group": None,
        "group_index": None,
        "retries": retries,
        "timelimit": time_limits,
        "root_id": root_id or id,
        "parent_id": parent_id,
        "argsrepr": repr(args),
        "kwargsrepr": repr(dict(kwargs if shown is None else shown))[:SHOWN_LENGTH],
        "origin": _origin(os.getpid()),
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        "millpond": own,
    }
    if traceparent is not None:
        headers["traceparent"] = traceparent
    payload = _encode(
        {
            "body": b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "correlation_id": id,
                "reply_to": "",
                "delivery_mode": 2,
                **({} if expires_ms is None else {"expiration": str(max(0, expires_ms - sent_at_ms))}),
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": priority,
                "body_encoding": "base64",
                "delivery_tag": new_id(),
            },
        }
    )
    return Outgoing(queue, id, payload, priority, due_ms, batch, claim, claim_ms, deadline_ms)


def _iso(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat()


@cache
def _origin(pid: int) -> str:
    return f"{pid}@{socket.gethostname()}"
