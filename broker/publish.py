"""Publish messages to their queues: the one write path, for one message as for a million.

The messages are grouped: a group is sent in one call of `publish.lua`, which takes the unique keys, obeys the
bound and wakes a consumer, atomically. All calls go out in one pipeline.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from redis.exceptions import NoScriptError

from millpond.broker.connection import Store, translate_errors
from millpond.broker.errors import BrokerAway
from millpond.broker.keys import QueueKeys, batch_key, step_of
from millpond.broker.outgoing import Outgoing
from millpond.broker.scripts import script

#: `exempt` ignores the bound. It is for tasks that the pool sends itself, because a retry must never wait for
#: room in its own queue.
Policy = Literal["block", "reject", "shed", "caller_runs", "exempt"]

#: The maximum of messages of a call, and the bytes after which no message is added to it. A script must stay
#: short, because the server runs nothing else meanwhile.
GROUP_MESSAGES = 200
GROUP_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """The message is on its queue."""

    id: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An earlier task, `duplicate_of`, has the unique key. This message was not accepted."""

    id: str
    duplicate_of: str


@dataclass(frozen=True, slots=True)
class Full:
    """The queue is at its bound. This message was not accepted.

    `per_second` is the drain rate of the pool, None if it is not measured, if no consumer fetches, or if the
    queue is `paused`. `delayed` is True if the bound of delayed messages is the one that is reached.
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
    """The queue is at its bound. The caller has this message in flight under `token`, and must run it."""

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

    `ticket` is the sender's entry in the admission line. If not all messages fit, the ticket stays in the
    line if `stays` is True, and leaves it otherwise. Under `caller_runs`, a message that does not fit is
    delivered to `consumer`, with a lease of `lease_ms`.
    """

    ticket: str = ""
    stays: bool = False
    consumer: str = ""
    lease_ms: int = 0


NOBODY = Caller()


def publish(
    store: Store, messages: Sequence[Outgoing], *, policy: Policy = "reject", caller: Caller = NOBODY
) -> list[Answer]:
    """Publish messages and return the answer to each, in their order.

    `block` and `reject` both refuse messages that do not fit. A producer that blocks waits outside the server
    and calls again. If the store requires copies, this returns only once that many replicas have the accepted
    messages. Raises `BrokerAway` if messages may have been accepted without a reply, or may be lost in a
    fail-over. Raises `BrokerError` if the server refuses a call.
    """
    groups = list(_group_messages(messages))
    with translate_errors("sending"):
        replies = _run_calls(store, [_publish_command(store, group, policy, caller) for group in groups])
    return [
        answer
        for group, reply in zip(groups, replies, strict=True)
        for answer in _parse_answers(group, reply)
    ]


def first_group(messages: Sequence[Outgoing]) -> list[Outgoing]:
    """Return the messages that the first call of `publish` would carry: of one queue, priority and batch."""
    return next(_group_messages(messages))


def _run_calls(store: Store, calls: list[tuple[Any, ...]]) -> list[Any]:
    """Return the replies of calls, in their order.

    Loads the script into a server that has lost it. Raises the first error among the replies.
    """
    replies = _pipeline_calls(store, calls)
    # A server without the script refuses a call before it does anything. It may have carried out other calls.
    refused = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if refused:
        store.client.script_load(script("publish").source)
        for n, reply in zip(refused, _pipeline_calls(store, [calls[n] for n in refused]), strict=True):
            replies[n] = reply
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _pipeline_calls(store: Store, calls: list[tuple[Any, ...]]) -> list[Any]:
    """Return the reply of each call, which is an error for a refused call.

    If the store requires copies, wait until that many replicas have the accepted messages.
    """
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
        _check_replicas(store, replies, replies.pop())
    return replies


def _check_replicas(store: Store, replies: list[Any], replica_count: Any) -> None:
    """Raise `BrokerAway` if a message was accepted, now or by an earlier call, that too few replicas have.

    A duplicate may be of a call that failed for the same reason. `replica_count` is the reply to WAIT: how
    many replicas have all messages. If it is an error, raise it.
    """
    if isinstance(replica_count, Exception):
        raise replica_count
    accepted = (
        answer == b"taken" or answer.startswith((b"run:", b"duplicate:"))
        for reply in replies
        if not isinstance(reply, Exception)
        for answer in reply[4:]
    )
    if replica_count < store.copies and any(accepted):
        raise BrokerAway(
            f"sending: {replica_count} of {store.copies} replicas have it after {store.copy_seconds:.1f} s, "
            "so a fail-over may lose it. Are they there? Send it again, with `once` if it must not run twice"
        )


def _group_messages(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Yield groups of successive messages, each for one call: of one queue, priority and batch."""
    group: list[Outgoing] = []
    size = 0
    for message in messages:
        fits = group and (group[0].queue, group[0].priority, group[0].batch) == (
            message.queue,
            message.priority,
            message.batch,
        )
        if group and (not fits or len(group) == GROUP_MESSAGES or size > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(message)
        size += len(message.payload)
    if group:
        yield group


def _publish_command(store: Store, group: list[Outgoing], policy: Policy, caller: Caller) -> tuple[Any, ...]:
    """Return the command that publishes a group of messages."""
    first = group[0]
    keys = _queue_keys(first.queue, store.prefix)
    args: list[Any] = [policy, step_of(first.priority), store.prefix]
    args += (caller.ticket, int(caller.stays), caller.consumer, caller.lease_ms)
    for message in group:
        due = "" if message.due_ms is None else message.due_ms
        deadline = "" if message.deadline_ms is None else message.deadline_ms
        args += (message.payload, message.id, due, message.claim or "", message.claim_ms, deadline)
    return script("publish").command((*keys, batch_key(first.batch, store.prefix) or keys[0]), args)


@lru_cache(maxsize=256)
def _queue_keys(queue: str, prefix: str) -> tuple[str, ...]:
    """Return the keys of a queue for the script. They are cached, because every call needs them."""
    return QueueKeys(queue, prefix).for_scripts


def _parse_answers(group: list[Outgoing], reply: list[Any]) -> list[Answer]:
    """Return the answer to each message of a call."""
    _now, depth, bound, rate, *texts = reply
    return [
        Accepted(message.id)
        if text == b"taken"
        else _parse_other_answer(message, bytes(text), depth, bound, rate)
        for message, text in zip(group, texts, strict=True)
    ]


def _parse_other_answer(message: Outgoing, text: bytes, depth: int, bound: int, rate: bytes) -> Answer:
    """Return the answer to a message that is not on its queue. `rate` is a drain rate, `paused` or empty."""
    word, _, detail = text.decode().partition(":")
    match word:
        case "full":
            paused = rate == b"paused"
            per_second = float(rate) if rate and not paused else None
            return Full(message.id, message.queue, bound, depth, per_second, bool(detail), paused)
        case "closed":
            return Closed(message.id, message.batch or "")
        case "late":
            return Late(message.id, message.queue, int(detail))
        case "run":
            return HandedToCaller(message.id, detail)
    return Duplicate(message.id, detail)
