"""Read, requeue and purge dead letters.

A dead letter is the whole message, with the reason and the details of its last run. The stream is bounded by
count and age (limits `dead_bound` and `dead_keep_ms`).
"""

import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.errors import BrokerError
from millpond.broker.keys import QueueKeys
from millpond.broker.scripts import script

#: Dead letters read in one round trip.
PAGE = 200

#: Texts that all JSON encoders write in the same way.
_PLAIN = re.compile(r"[A-Za-z0-9_ .:,()\[\]=+*@-]+")


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter.

    `id` is unique within its queue. `died_at_ms` is by the server's clock. `detail` has `error` and, after a
    run, `traceback`, `retries` and `worker`. `message` is the message as stock Celery would write it.
    """

    id: str
    queue: str
    task_id: str
    kind: str
    reason: str
    deliveries: int
    died_at_ms: int
    detail: dict[str, Any]
    message: bytes

    @property
    def error(self) -> str:
        """The error in one line, or "" without one."""
        return str(self.detail.get("error", ""))

    @property
    def kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments as they were sent, not redacted, or {} if they cannot be read."""
        payload = _parse_object(self.message)
        try:
            is_base64 = payload["properties"].get("body_encoding") == "base64"
            _args, kwargs, _embed = json.loads(b64decode(payload["body"]) if is_base64 else payload["body"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}
        return kwargs if isinstance(kwargs, dict) else {}


@dataclass(frozen=True)
class LetterFilter:
    """The dead letters that are wanted. A value that is None leaves out none.

    `kind` and `task_id` must be equal, `reason` must be a part of the reason or the error, `since_ms` and
    `until_ms` are the first and the last time of death (by the server's clock).
    """

    kind: str | None = None
    reason: str | None = None
    task_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """True if the dead letter has the kind, the reason and the id."""
        return (
            (self.kind is None or letter.kind == self.kind)
            and (self.task_id is None or letter.task_id == self.task_id)
            and (self.reason is None or self.reason in letter.reason or self.reason in letter.error)
        )

    def may_match(self, fields: Mapping[bytes, bytes]) -> bool:
        """False if the fields of a dead letter show, before they are parsed, that it does not match.

        This is quick, and parsing all dead letters would be slow.
        """
        kind, reason, task_id = map(_bytes_in_json, (self.kind, self.reason, self.task_id))
        message = fields[b"message"]
        return (
            kind in message
            and task_id in message
            and (reason in fields[b"reason"] or reason in fields[b"detail"])
        )


NO_FILTER = LetterFilter()


def read_dead_letters(
    store: Store, queue: str, wanted: LetterFilter = NO_FILTER, *, newest_first: bool = False
) -> Iterator[DeadLetter]:
    """Yield the wanted dead letters of a queue in constant memory, the oldest first by default."""
    start = "-" if wanted.since_ms is None else str(max(0, wanted.since_ms))
    end = "+" if wanted.until_ms is None else str(max(0, wanted.until_ms))
    for entry, fields in _read_entries(store, queue, start, end, newest_first):
        if wanted.may_match(fields):
            letter = _parse_letter(queue, entry.decode(), fields)
            if wanted.matches(letter):
                yield letter


def _bytes_in_json(text: str | None) -> bytes:
    """Return the bytes that must occur in JSON with this text, or b"" for None or if encoders differ."""
    return text.encode() if text and _PLAIN.fullmatch(text) else b""


def _read_entries(
    store: Store, queue: str, start: str, end: str, newest_first: bool
) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """Yield the entries of the stream page by page, in the requested order."""
    key = QueueKeys(queue, store.prefix).dead
    while True:
        with translate_errors(f"reading the dead letters of {queue!r}"):
            if newest_first:
                page = store.client.xrevrange(key, max=end, min=start, count=PAGE)
            else:
                page = store.client.xrange(key, min=start, max=end, count=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = "(" + page[-1][0].decode()
        start, end = (start, after) if newest_first else (after, end)


def read_dead_letter(store: Store, queue: str, letter_id: str) -> DeadLetter | None:
    """Return one dead letter, or None if the queue has none of this id."""
    keys = QueueKeys(queue, store.prefix)
    with translate_errors(f"reading dead letter {letter_id}"):
        entries = store.client.xrange(keys.dead, min=letter_id, max=letter_id)
    return _parse_letter(queue, entries[0][0].decode(), entries[0][1]) if entries else None


def requeue(store: Store, queue: str, letter_id: str) -> bool:
    """Send a dead letter again. Return False if it is gone.

    The message leaves the dead letters and joins its queue in one script. Raises `BrokerError` if another
    task has its unique key now.
    """
    keys = QueueKeys(queue, store.prefix)
    with translate_errors(f"requeueing dead letter {letter_id}"):
        reply = script("requeue").run(store.client, keys.for_scripts, (letter_id, store.prefix))
    if isinstance(reply, bytes):
        raise BrokerError(
            f"the unique key of dead letter {letter_id} belongs to task {reply.decode()} now: "
            "requeue it when that task has ended"
        )
    return bool(reply)


def purge(store: Store, queue: str, letter_id: str) -> bool:
    """Delete a dead letter. Return False if it is gone."""
    with translate_errors(f"purging dead letter {letter_id}"):
        return bool(store.client.xdel(QueueKeys(queue, store.prefix).dead, letter_id))


def _parse_letter(queue: str, letter_id: str, fields: dict[bytes, bytes]) -> DeadLetter:
    """Return the dead letter in an entry of the stream."""
    headers = _parse_headers(fields[b"message"])
    return DeadLetter(
        id=letter_id,
        queue=queue,
        task_id=str(headers.get("id", "")),
        kind=str(headers.get("task", "")),
        reason=fields[b"reason"].decode(errors="replace"),
        deliveries=int(fields[b"deliveries"]),
        died_at_ms=int(letter_id.split("-")[0]),
        detail=_parse_object(fields[b"detail"]),
        message=fields[b"message"],
    )


def _parse_headers(message: bytes) -> dict[str, Any]:
    """Return the headers of a message, or {} if it is unreadable."""
    headers = _parse_object(message).get("headers")
    return headers if isinstance(headers, dict) else {}


def _parse_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object in a text, or {} if the text is not one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
