"""The call of settle_and_fetch.lua: make its command, parse its reply, deliver the fetched messages."""

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
from millpond.broker.message import BadMessage, Message
from millpond.broker.outcomes import RELEASE, DeadLetter, Delay, encode_outcome
from millpond.broker.scripts import script

logger = logging.getLogger(__name__)

#: A message that is due within this many ms is run at once: clocks are no more precise.
DUE_SOON_MS = 2


@dataclass(frozen=True, slots=True)
class Fetched:
    """One message of a reply: its token, the number of deliveries before this one, and its text."""

    token: str
    deliveries: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a call, as settle_and_fetch.lua describes it.

    `lease` is False if the lease had expired: nothing was settled then, and nothing fetched. `late` counts
    outcomes that changed nothing. `next_ms` is when to fetch again: -1 after a wake token, 0 at once, else in
    this many ms. `epoch` is the control epoch. `unlisted` is True if the list of consumers had been deleted;
    the lease is in force again. `limited` is True if messages wait for a permit of the in-flight limit.
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
    """Return the command of the call, and count the call: its number becomes a part of each token."""
    lease = request.lease
    lease.calls += 1
    prefix = lease.keys.prefix
    keys = (*lease.keys.for_scripts, lease.keys.bucket, epoch_key(prefix))
    args: list[Any] = [
        lease.consumer,
        lease.own_term_ms or lease_ms,
        request.credit,
        request.free_slots,
        "0" if lease.registered else "1",
        prefix,
        lease.calls,
        "" if lease.announced_by == lease.consumer else lease.kinds,
    ]
    for delivery, outcome in request.outcomes:
        message, (action, state, detail, due_ms, text) = delivery.message, encode_outcome(outcome)
        batch = "" if message.batch is None else batch_key(message.batch, prefix)
        args += (delivery.token, action, batch, message.id, state, detail, due_ms, text, message.unique_key)
    return script("settle_and_fetch").command(keys, args)


def parse_reply(raw: list[Any]) -> Reply:
    """Return the parts of the reply to a call."""
    now_ms, lease, late, next_ms, epoch, limited, *values = raw
    messages = [Fetched(values[i].decode(), values[i + 1], values[i + 2]) for i in range(0, len(values), 3)]
    return Reply(now_ms, lease > 0, late, next_ms, int(epoch), messages, lease == 2, limited == 1)


def call_and_wait(store: Store, request: FetchRequest, *, lease_ms: int) -> Reply:
    """Make a call and wait for its reply. Without a reply, its outcomes are queued again."""
    command = fetch_command(request, lease_ms=lease_ms)
    try:
        reply = parse_reply(script("settle_and_fetch").run_command(store.client, command))
    except BaseException:
        request.lease.put_back_outcomes(request.outcomes)
        raise
    if reply.lease:
        update_lease(request, reply)
    return reply


def settle_pending(store: Store, in_flight: InFlightMessages, *, lease_ms: int) -> None:
    """Send all queued outcomes, and fetch nothing."""
    for lease in in_flight.leases.values():
        while lease.outcomes:
            call_and_wait(store, FetchRequest(lease, 0, 0, lease.take_outcomes()), lease_ms=lease_ms)


def update_lease(request: FetchRequest, reply: Reply) -> None:
    """Update a lease by the reply to a call: it is in force, the server's clock, and when to fetch again.

    Calls `on_settled` of each delivery that the call has settled.
    """
    lease = request.lease
    lease.registered, lease.announced_by = True, lease.consumer
    lease.late += reply.late
    lease.orphans_searched &= not reply.unlisted
    if request.sent_ms is not None:
        lease.record_clock(reply.now_ms - request.sent_ms, took_ms=int(time.time() * 1000) - request.sent_ms)
    for delivery, _outcome in request.outcomes:
        if delivery.on_settled is not None:
            delivery.on_settled()
    if request.credit:
        lease.fetchable, lease.is_limited = reply.next_ms == 0, reply.limited
        lease.fetch_at = time.monotonic() + reply.next_ms / 1000 if reply.next_ms > 0 else 0.0


def accept_messages(
    lease: QueueLease, reply: Reply, deliver: Callable[[Delivery], None], *, keeps_errors: bool = True
) -> None:
    """Register the fetched messages as in flight, and deliver each.

    A message that cannot be decoded becomes a dead letter with the reason, and the next message is delivered.
    The same is done if `deliver` raises an error and `keeps_errors` is True. An error of a connection is
    raised all the same. Without `keeps_errors` every error is raised, and the messages after it are released.
    """
    if reply.messages:
        lease.last_sequence = max(lease.last_sequence, int(reply.messages[-1].token.partition("/")[0]))
    clock_ms = lease.clock_ms
    registered = [_register_message(lease, reply, fetched, clock_ms) for fetched in reply.messages]
    deliveries = [delivery for delivery in registered if delivery is not None]
    for index, delivery in enumerate(deliveries):
        try:
            deliver(delivery)
        except BaseException as error:
            if not keeps_errors:
                for later in deliveries[index + 1 :]:
                    lease.queue_outcome(later, RELEASE)
                raise
            if isinstance(error, OSError | RedisError):
                # The connection broke before these were delivered: resuming the lease returns them to the
                # queue.
                for undelivered in deliveries[index:]:
                    lease.in_flight.pop(undelivered.token, None)
                raise
            if not isinstance(error, Exception):
                raise
            lease.queue_outcome(delivery, DeadLetter("invalid message", f"{type(error).__name__}: {error}"))


def _register_message(lease: QueueLease, reply: Reply, fetched: Fetched, clock_ms: int) -> Delivery | None:
    """Register a message as in flight and return its delivery.

    Of a message that cannot be decoded or is not due, queue the outcome and return None.
    """
    delivery = Delivery(
        _UNDECODED, lease.keys.queue, fetched.token, fetched.deliveries, clock_ms, lease=lease
    )
    lease.in_flight[fetched.token] = delivery
    lease.fetched_and_settled += 1
    try:
        message = delivery.message = Message.decode(fetched.payload)
        if message.headers.get("eta") is None:
            return delivery
        delivery.due_ms = message.due_ms
    except BadMessage as error:
        lease.queue_outcome(delivery, DeadLetter(error.reason, str(error)))
        return None
    if delivery.due_ms is not None and delivery.due_ms > reply.now_ms + DUE_SOON_MS:
        lease.queue_outcome(delivery, Delay(delivery.due_ms))
        return None
    return delivery


#: The message of a delivery until its text is decoded, or if it cannot be decoded.
_UNDECODED = Message({"headers": {}, "properties": {}}, b"")


def make_connection_error(action: str, error: ResponseError) -> RedisConnectionError:
    """Return the connection error to raise because the server refused `action`: the worker connects again.

    An error of the script itself is logged too.
    """
    if "script" in str(error) and not str(error).startswith("BUSY"):
        logger.error("the script settle_and_fetch.lua failed in the broker: %s", error)
    return RedisConnectionError(f"the broker refused {action}: {error}")
