"""Publish messages to their queues: the one write path, for one message as for a million.

Each chunk is one call of `publish.lua`, which takes the claims, looks at the bound and wakes a consumer,
atomically. Chunks of different queues go out in one pipeline.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from redis.exceptions import NoScriptError

from millpond.broker.connection import Store, translate_errors
from millpond.broker.errors import BrokerAway
from millpond.broker.keys import QueueKeys, batch_key, step_of
from millpond.broker.message import Outgoing
from millpond.broker.scripts import script

#: `exempt` is for tasks that the pool sends itself: a retry must never wait for room in its own queue.
Policy = Literal["block", "reject", "shed", "caller_runs", "exempt"]

#: Messages a call, and bytes a call. A script must stay short, because nothing else runs on the server.
CHUNK_MESSAGES = 200
CHUNK_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """The message is on its queue."""

    id: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An earlier task has the claim. This message was not accepted."""

    id: str
    duplicate_of: str


@dataclass(frozen=True, slots=True)
class Full:
    """The queue is at its bound. This message was not accepted.

    The pool clears `per_second` messages: None if not measured or if there is no pool, 0 while the queue is
    `paused`. `delayed`: the bound of delayed messages is reached.
    """

    id: str
    queue: str
    bound: int
    depth: int
    per_second: float | None = None
    delayed: bool = False
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Late:
    """The message was refused: the pool would start it in `wait_ms`, after its deadline."""

    id: str
    queue: str
    wait_ms: int


@dataclass(frozen=True, slots=True)
class HandedToCaller:
    """The queue is at its bound. The caller has this message, by its token, and must run it."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The batch is closed, cancelled or unknown. This message was not accepted."""

    id: str
    batch: str


Answer = Accepted | Duplicate | Full | Closed | Late | HandedToCaller


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a call, for the policies that need it.

    `ticket` is a producer's entry in the admission line. `stays` is True if it waits on when not everything
    fits. Under `caller_runs`, `consumer` runs a message that does not fit, with a lease of `lease_ms`.
    """

    ticket: str = ""
    stays: bool = False
    consumer: str = ""
    lease_ms: int = 0


NOBODY = Caller()


def publish(
    store: Store, messages: Sequence[Outgoing], *, policy: Policy = "reject", caller: Caller = NOBODY
) -> list[Answer]:
    """Publish messages and return the result for each, in their order.

    `block` and `reject` both refuse messages that do not fit. A producer that blocks waits outside the server
    and calls again. If the store requires copies, this returns only once that many replicas have the accepted
    messages. Raises `BrokerAway` if it is not known whether the last call was carried out, or will last.
    Raises `BrokerError` if it was refused.
    """
    chunks = list(_group_messages(messages))
    with translate_errors("sending"):
        replies = _run_calls(store, [_publish_command(store, chunk, policy, caller) for chunk in chunks])
    return [
        outcome
        for chunk, reply in zip(chunks, replies, strict=True)
        for outcome in _parse_answers(chunk, reply)
    ]


def first_group(messages: Sequence[Outgoing]) -> list[Outgoing]:
    """Return the first messages that one call can carry: of one queue, priority and batch."""
    return next(_group_messages(messages))


def _run_calls(store: Store, calls: list[tuple[Any, ...]]) -> list[Any]:
    """Return the replies of calls.

    Loads the script into a server that has lost it. Raises the first error.
    """
    replies = _pipeline_calls(store, calls)
    # A server that lost its scripts refused these before it did anything. It may have carried out others.
    unseen = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unseen:
        store.client.script_load(script("publish").source)
        for n, reply in zip(unseen, _pipeline_calls(store, [calls[n] for n in unseen]), strict=True):
            replies[n] = reply
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _pipeline_calls(store: Store, calls: list[tuple[Any, ...]]) -> list[Any]:
    """Return the reply of each call, which is an error for a refused call."""
    if len(calls) == 1 and not store.copies:
        try:
            return [store.client.execute_command(*calls[0])]
        except NoScriptError as error:
            return [error]
    with store.client.pipeline(transaction=False) as pipe:
        for call in calls:
            pipe.execute_command(*call)
        if store.copies:
            pipe.execute_command("WAIT", store.copies, int(store.copy_seconds * 1000))
        replies: list[Any] = pipe.execute(raise_on_error=False)
    if store.copies:
        _wait_for_replicas(store, replies, replies.pop())
    return replies


def _wait_for_replicas(store: Store, replies: list[Any], copies: Any) -> None:
    """Raise `BrokerAway` if a message was accepted that too few replicas have."""
    if isinstance(copies, Exception):
        raise copies
    taken = (
        answer == b"taken" or answer.startswith(b"run:")
        for reply in replies
        if not isinstance(reply, Exception)
        for answer in reply[4:]
    )
    if copies < store.copies and any(taken):
        raise BrokerAway(
            f"sending: {copies} of {store.copies} replicas have it after {store.copy_seconds:.1f} s, so a "
            "fail-over may lose it. Are they there? Send it again, with `once` if it must not run twice"
        )


def _group_messages(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Group neighbours that one call can carry: of one queue, priority and batch, and not too many."""
    chunk: list[Outgoing] = []
    size = 0
    for message in messages:
        alike = chunk and (chunk[0].queue, chunk[0].priority, chunk[0].batch) == (
            message.queue,
            message.priority,
            message.batch,
        )
        if chunk and (not alike or len(chunk) == CHUNK_MESSAGES or size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += len(message.payload)
    if chunk:
        yield chunk


def _publish_command(store: Store, chunk: list[Outgoing], policy: Policy, caller: Caller) -> tuple[Any, ...]:
    """Return the command that publishes a group of messages."""
    first = chunk[0]
    keys = _queue_keys(first.queue, store.prefix)
    args: list[Any] = [policy, step_of(first.priority), store.prefix]
    args += (caller.ticket, int(caller.stays), caller.consumer, caller.lease_ms)
    for m in chunk:
        due = "" if m.due_ms is None else m.due_ms
        deadline = "" if m.deadline_ms is None else m.deadline_ms
        args += (m.payload, m.id, due, m.claim or "", m.claim_ms, deadline)
    return script("publish").command((*keys, batch_key(first.batch, store.prefix) or keys[0]), args)


@lru_cache(maxsize=256)
def _queue_keys(queue: str, prefix: str) -> tuple[str, ...]:
    return QueueKeys(queue, prefix).all


def _parse_answers(chunk: list[Outgoing], reply: list[Any]) -> list[Answer]:
    """Return the result for each message of a call."""
    _now, depth, bound, rate, *answers = reply
    full = depth, bound, rate
    return [
        Accepted(message.id) if answer == b"taken" else _parse_refusal(message, bytes(answer), *full)
        for message, answer in zip(chunk, answers, strict=True)
    ]


def _parse_refusal(message: Outgoing, answer: bytes, depth: int, bound: int, rate: bytes) -> Answer:
    """Return the result for a message that is not on its queue."""
    word, _, more = answer.decode().partition(":")
    match word:
        case "full":
            paused = rate == b"paused"
            per_second = float(rate) if rate and not paused else None
            return Full(message.id, message.queue, bound, depth, per_second, bool(more), paused)
        case "closed":
            return Closed(message.id, message.batch or "")
        case "late":
            return Late(message.id, message.queue, int(more))
        case "run":
            return HandedToCaller(message.id, more)
    return Duplicate(message.id, more)
