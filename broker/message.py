"""A message as it is stored in Redis: Celery's protocol 2 in kombu's envelope, decoded once.

Millpond's own fields are in one header, `millpond`: the time of sending (`at`, ms by the server's clock), the
`batch`, the batch whose callback the message is (`after`), the unique key (`once`), the trace of the run
before (`link`). `outgoing.py` composes the messages to be sent. Their ids are made here, because the message
of a task's next run needs one too.

Source: Celery's documentation, "Message Protocol", version 2; kombu's virtual transports.
"""

import json
import os
import socket
from base64 import b64decode
from functools import cache, cached_property
from typing import Any, Self

from pydantic_core import from_json

from millpond.broker import message_body, message_names
from millpond.broker.header_times import format_eta, parse_eta_ms
from millpond.broker.message_body import Arguments as Arguments
from millpond.broker.message_body import BadMessage as BadMessage

#: Arguments shown in events, logs and dead letters are cut to this many characters.
SHOWN_LENGTH = 1024

#: The header with Millpond's own fields.
OWN = "millpond"


class _Encoder(json.JSONEncoder):
    """Writes JSON, and the types that kombu's JSON knows: times, UUIDs, bytes."""

    def default(self, o: Any) -> Any:
        from kombu.utils.json import JSONEncoder  # a producer of plain JSON does without

        return JSONEncoder().default(o)


# Bound at import, because a handler in the same process may replace functions of the json module.
dump_json = _Encoder(separators=(",", ":")).encode
_load_json = json.loads


class Message:
    """The message of a task, decoded once.

    `text` is its JSON in Redis. A field that a foreign client wrote in another type is ignored. Times are ms
    since the epoch, by the server's clock.
    """

    def __init__(self, envelope: dict[str, Any], text: bytes | str) -> None:
        headers, properties = envelope.get("headers") or {}, envelope["properties"]
        if not isinstance(headers, dict) or not isinstance(properties, dict):
            raise TypeError("properties and headers must be objects")
        own = headers.get(OWN)
        self.own: dict[str, Any] = own if isinstance(own, dict) else {}
        self.envelope, self.headers, self.properties, self.text = envelope, headers, properties, text
        self.id = str(headers.get("id", ""))
        self.kind = str(headers.get("task", ""))
        batch, unique_key, sent_ms = self.own.get("batch"), self.own.get("once"), self.own.get("at")
        self.batch = batch if isinstance(batch, str) else None
        self.unique_key = unique_key if isinstance(unique_key, str) else ""
        self.sent_ms = sent_ms if isinstance(sent_ms, int) else None
        retries = headers.get("retries")
        #: The number of retries before this run. A negative number would allow runs without end, so it is 0.
        self.retries = max(0, retries) if isinstance(retries, int) else 0
        shadow = headers.get("shadow")
        #: The task's name as people see it: Celery's `shadow`, or its kind.
        self.name = shadow if shadow and isinstance(shadow, str) else self.kind

    @classmethod
    def decode(cls, text: bytes | str) -> Self:
        """Decode a message. Raises `BadMessage` for a text that is none."""
        try:
            try:
                envelope = from_json(text)
            except (ValueError, TypeError):
                envelope = parse_json(text)
            if (b"__type__" in text) if isinstance(text, bytes) else ("__type__" in text):
                envelope = _load_kombu_json(text)
            if not isinstance(envelope, dict):
                raise TypeError("it must be an object")
            message = cls(envelope, text)
            shown = f"{message.id}{message.kind}{message.name}"
            stored = f"{message.batch}{message.unique_key}"
            # One quick test of all names together. The slow one finds the name that is wrong, if any is.
            if not (len(shown) <= message_names.LONGEST and shown.isprintable() and stored.isascii()):
                message_names.check_names(
                    id=message.id, kind=message.kind, batch=message.batch, unique_key=message.unique_key
                )
                if not message.name.isprintable():
                    message.name = message.kind
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadMessage("not a message", f"{type(error).__name__}: {error}") from error
        return message

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message as its text, which is decoded as quickly as pickle would load the parts."""
        return Message.decode, (self.text,)

    @cached_property
    def arguments(self) -> Arguments:
        """Return the arguments of the task. Raises `BadMessage`."""
        try:
            body = self.envelope["body"]
            body = b64decode(body) if self.properties.get("body_encoding") == "base64" else body.encode()
            is_json = self.envelope.get("content-type") == "application/json"
            is_json = is_json and "application/json" in message_body.accepted
            is_plain = is_json and message_body.OWN_TYPE not in body and not self.headers.get("compression")
            decoded = from_json(body) if is_plain else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            decoded = None  # `message_body.decode` decodes an unusual body, or refuses it with a reason
        if type(decoded) is list and len(decoded) == 3:
            args, kwargs, embed = decoded
            is_usual = type(args) is list and type(kwargs) is dict and type(embed) is dict
            if is_usual and not any(embed.values()):
                return args, kwargs, embed
        return message_body.decode_arguments(self.envelope, self.headers, self.properties)

    @property
    def traceparent(self) -> str | None:
        """Return the trace to which the task belongs, as W3C Trace Context writes it."""
        traceparent = self.headers.get("traceparent")
        return traceparent if isinstance(traceparent, str) else None

    @property
    def due_ms(self) -> int | None:
        """Return the time from which the task may run, or None for at once. Raises `BadMessage`."""
        return self._header_ms("eta")

    @property
    def expires_ms(self) -> int | None:
        """Return the time by which the task must have started, or None. Raises `BadMessage`."""
        return self._header_ms("expires")

    def _header_ms(self, name: str) -> int | None:
        try:
            return parse_eta_ms(self.headers.get(name))
        except (ValueError, TypeError) as error:
            text = f"its {name} is not a time: {self.headers[name]!r:.80}"
            raise BadMessage("invalid message", text) from error

    @property
    def time_limits(self) -> tuple[float | None, float | None]:
        """Return the message's own hard and soft time limits, seconds, or None. Raises `BadMessage`."""
        limits = self.headers.get("timelimit")
        if not limits:
            return None, None
        match limits:
            case [int() | float() | None as hard, int() | float() | None as soft]:
                return hard, soft
        raise BadMessage(
            "invalid message", f"its time limits must be two numbers of seconds or null, not {limits!r:.80}"
        )

    @property
    def queue(self) -> str | None:
        """Return the queue to which the message was sent, or None if it does not say."""
        info = self.properties.get("delivery_info")
        queue = info.get("routing_key") if isinstance(info, dict) else None
        return queue if isinstance(queue, str) else None

    @property
    def priority(self) -> int:
        """Return the priority of the message, from 0 (fetched first) to 9."""
        priority = self.properties.get("priority")
        return priority if isinstance(priority, int) else 0

    def for_next_run(
        self, *, due_ms: int | None, retries: int, shown: str, previous_traceparent: str | None = None
    ) -> Self:
        """Return the message of the task's next run. Its body, with Celery's callbacks, is unchanged.

        `shown` is the text of the keyword arguments for logs and events. `previous_traceparent` links to the
        trace of this run.
        """
        link = {} if previous_traceparent is None else {"link": previous_traceparent}
        headers = {
            **self.headers,
            "eta": format_eta(due_ms),
            "retries": retries,
            "kwargsrepr": shown,
            "origin": process_origin(os.getpid()),
            OWN: {**self.own, **link},
        }
        properties = {**self.properties, "delivery_tag": new_id()}
        envelope = {**self.envelope, "headers": headers, "properties": properties}
        return type(self)(envelope, dump_json(envelope))


def parse_json(text: bytes | str) -> Any:
    """Parse a JSON text. This is quicker than `json.loads`, accepts the same texts and raises its errors."""
    try:
        return from_json(text)
    except (ValueError, TypeError):  # json.loads accepts half a surrogate pair, deep nesting, other encodings
        return _load_json(text)


def _load_kombu_json(text: bytes | str) -> Any:
    """Parse a JSON text with times, UUIDs or bytes, as kombu writes them. Raises `ValueError`."""
    from kombu.utils.json import loads

    try:
        return loads(text)
    except Exception as error:  # kombu calls the types that the text names, and they raise any error
        raise ValueError(f"{type(error).__name__}: {error}") from error


@cache
def process_origin(pid: int) -> str:
    """Return the header `origin` of messages that this process sends."""
    return f"{pid}@{socket.gethostname()}"


#: Ids made in advance by this process. A call of `os.urandom` for each id would be a fifth of the cost of
#: composing a message, and each call passes the interpreter's lock to another thread.
_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)  # a child must not use the ids of its parent
_IDS_AT_ONCE = 128


def new_id() -> str:
    """Return a random id (UUID version 4, RFC 9562)."""
    try:
        return _ids.pop()  # atomic, so no two threads get the same id
    except IndexError:
        digits = os.urandom(16 * _IDS_AT_ONCE).hex()
        of_each = [digits[start : start + 32] for start in range(0, len(digits), 32)]
        # The four bits of the version are fixed, and two bits of the variant.
        ids = [f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{_VARIANT[d[16]]}{d[17:20]}-{d[20:]}" for d in of_each]
        _ids.extend(ids[1:])
        return ids[0]


#: A random hexadecimal digit -> the digit with the two bits of the variant set.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
