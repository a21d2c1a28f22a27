"""The call of settle_and_fetch.lua: write it, read its reply, deliver the fetched messages."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest, QueueLease
from millpond.broker.delivery import Delivery
from millpond.broker.keys import batch_key, epoch_key
from millpond.broker.message import Message
from millpond.broker.outcomes import RELEASE, DeadLetter, Delay, encode_outcome
from millpond.broker.scripts import script

logger = logging.getLogger(__name__)

#: A message that is due within this many ms is run at once: clocks are no more precise.
DUE_SOON_MS = 2


@dataclass(frozen=True, slots=True)
class Fetched:
    """One message of a reply: its token, how often it was delivered before, and its text."""

    token: str
    deliveries: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a call. `lease` is False if it had expired, and then nothing was done.

    `unlisted`: the list of consumers had been deleted, and the lease holds again. `limited`: messages wait
    for a permit of the in-flight limit.
    """

    now_ms: int
    lease: bool
    late: int
    next_ms: int
    epoch: int
    messages: list[Fetched]
    unlisted: bool = False
    limited: bool = False


def fetch_command(request: FetchRequest, *, lease_ms: int) -> tuple[Any, ...]:
    """Return the words of the call, under a number of its own."""
    lease = request.lease
    lease.calls += 1
    prefix = lease.keys.prefix
    keys = (*lease.keys.all, lease.keys.bucket, epoch_key(prefix))
    args: list[Any] = [
        lease.consumer,
        lease.own_term_ms or lease_ms,
        request.credit,
        request.free_slots,
        "0" if lease.registered else "1",
        prefix,
        lease.calls,
        "" if lease.announced == lease.consumer else lease.kinds,
    ]
    for delivery, outcome in request.outcomes:
        message, (action, state, detail, due_ms, text) = delivery.message, encode_outcome(outcome)
        batch = "" if message.batch is None else batch_key(message.batch, prefix)
        args += (delivery.token, action, batch, message.id, state, detail, due_ms, text, message.unique_key)
    return script("settle_and_fetch").command(keys, args)


def read_reply(raw: list[Any]) -> Reply:
    """Read the reply of a call."""
    now_ms, lease, late, next_ms, epoch, limited, *rest = raw
    messages = [Fetched(rest[i].decode(), rest[i + 1], rest[i + 2]) for i in range(0, len(rest), 3)]
    return Reply(now_ms, lease > 0, late, next_ms, int(epoch), messages, lease == 2, limited == 1)


def call_and_wait(store: Store, request: FetchRequest, *, lease_ms: int) -> Reply:
    """Make a call and wait for its reply. Without a reply its outcomes must be sent again."""
    words = fetch_command(request, lease_ms=lease_ms)
    keys = words[3 : 3 + words[2]]
    try:
        reply = read_reply(script("settle_and_fetch").run(store.client, keys, words[3 + len(keys) :]))
    except BaseException:
        request.lease.put_back(request.outcomes)
        raise
    if reply.lease:
        note_queue_state(request, reply)
    return reply


def settle_pending(store: Store, in_flight: InFlightMessages, *, lease_ms: int) -> None:
    """Send every outcome that waits to be sent, and fetch nothing."""
    for lease in in_flight.leases.values():
        while lease.outcomes:
            call_and_wait(store, FetchRequest(lease, 0, 0, lease.take_outcomes()), lease_ms=lease_ms)


def note_queue_state(request: FetchRequest, reply: Reply) -> None:
    """Note the state of the queue in the reply: whether to fetch again, and when."""
    lease = request.lease
    lease.registered, lease.announced = True, lease.consumer
    lease.late += reply.late
    lease.orphans_sought &= not reply.unlisted
    if request.asked_ms is not None:
        lease.note_clock(reply.now_ms - request.asked_ms, took_ms=int(time.time() * 1000) - request.asked_ms)
    for delivery, _outcome in request.outcomes:
        if delivery.on_settled is not None:
            delivery.on_settled()
    if request.credit:
        lease.fetchable, lease.is_limited = reply.next_ms == 0, reply.limited
        lease.look_at = time.monotonic() + reply.next_ms / 1000 if reply.next_ms > 0 else 0.0


def accept_messages(
    lease: QueueLease, reply: Reply, deliver: Callable[[Delivery], None], *, buries: bool = True
) -> None:
    """Note the fetched messages as in flight and deliver each.

    A message that cannot be read is dead-lettered with the reason, and the next one follows. So is a message
    that cannot be delivered if the receiver `buries`. Otherwise the error is raised, and later messages are
    returned.
    """
    if reply.messages:
        lease.seen = max(lease.seen, int(reply.messages[-1].token.partition("/")[0]))
    clock_ms = lease.clock_ms
    noted = [_note_fetched(lease, reply, fetched, clock_ms) for fetched in reply.messages]
    deliveries = [each for each in noted if each is not None]
    for place, delivery in enumerate(deliveries):
        try:
            deliver(delivery)
        except BaseException as error:
            if not buries:
                for later in deliveries[place + 1 :]:
                    lease.queue_outcome(later, RELEASE)
                raise
            if isinstance(error, OSError | RedisError):
                # The connection broke before these were passed on: the resumption returns them to the queue.
                for unknown in deliveries[place:]:
                    lease.in_flight.pop(unknown.token, None)
                raise
            if not isinstance(error, Exception):
                raise
            lease.queue_outcome(delivery, DeadLetter("invalid message", f"{type(error).__name__}: {error}"))


def _note_fetched(lease: QueueLease, reply: Reply, fetched: Fetched, clock_ms: int) -> Delivery | None:
    """Note a message as in flight and return its delivery, or settle it if it is unreadable or not due."""
    delivery = Delivery(
        UNREADABLE, lease.keys.queue, fetched.token, fetched.deliveries, clock_ms, lease=lease
    )
    lease.in_flight[fetched.token] = delivery
    lease.fetched_and_settled += 1
    try:
        message = delivery.message = Message.decode(fetched.payload)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        lease.queue_outcome(delivery, DeadLetter("not a message", f"{type(error).__name__}: {error}"))
        return None
    if message.headers.get("eta") is None:
        return delivery
    try:
        delivery.due_ms = message.due_ms
    except (ValueError, TypeError) as error:
        lease.queue_outcome(delivery, DeadLetter("invalid message", f"{type(error).__name__}: {error}"))
        return None
    if delivery.due_ms is not None and delivery.due_ms > reply.now_ms + DUE_SOON_MS:
        lease.queue_outcome(delivery, Delay(delivery.due_ms))
        return None
    return delivery


#: The placeholder of a message until it is decoded, and of one that cannot be.
UNREADABLE = Message({"headers": {}, "properties": {}}, b"")


def server_error(action: str, error: ResponseError) -> RedisConnectionError:
    """Return the error that ends a connection whose server refused. An error of a script's own is logged."""
    if "script" in str(error) and not str(error).startswith("BUSY"):
        logger.error("the script settle_and_fetch.lua failed in the broker: %s", error)
    return RedisConnectionError(f"the broker refused {action}: {error}")
