"""The call of settle_and_fetch.lua: choose it, make its command, parse its reply, deliver the messages.

A `FetchRequest` settles the gathered outcomes of one queue, and gives all the credit of the process to it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
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

#: Outcomes are sent together once there are this many, or once the oldest has waited for this long.
GATHERED = 8
GATHERED_SECONDS = 0.005

#: How long a wake token lasts that no process takes, as in scripts/_queue.lua.
WAKE_TOKEN_MS = 60_000

#: How long a process relies on its last measurement of the server's clock.
CLOCK_FRESH_SECONDS = 25.0


def take_next_request(in_flight: InFlightMessages, active: Set[str], now: float) -> FetchRequest | None:
    """Return the next call to send, with the outcomes of its queue, which it takes. None if no call is due.

    Only queues in `active` are fetched from. A call is due for a queue when half of the prefetch is used up,
    or when its outcomes have been gathered. `now` is monotonic seconds.
    """
    if in_flight.finished:
        in_flight.settle_finished()
    count = in_flight.count
    in_flight.learned_prefetch.measure(now, is_full=count >= in_flight.capacity[0])
    for queue in _queues_in_order(in_flight, now):
        lease = in_flight.leases[queue]
        if lease.lease_lost:
            in_flight.replace_lost_lease(lease)
        if lease.fetch_at and now >= lease.fetch_at:
            lease.fetchable, lease.fetch_at = True, 0.0
        may_find = lease.fetchable or (lease.is_limited and bool(lease.outcomes))
        is_fetching = may_find and lease.keys.queue in active and not in_flight.starts_nothing
        if not (is_fetching or lease.outcomes):
            continue
        slots, prefetch = in_flight.capacity
        room = max(0, slots + prefetch - count) if is_fetching else 0
        if room and in_flight.may_fetch is not None:
            room = 1 if in_flight.may_fetch() else 0
        is_half_empty = room > 0 and count <= slots + prefetch // 2
        gathered = now - lease.outcomes_since >= GATHERED_SECONDS or len(lease.outcomes) >= GATHERED
        # Work would be delayed if messages wait for the permits that the outcomes free, or if nothing runs.
        is_urgent = lease.is_limited or not count or in_flight.draining
        if is_half_empty or (lease.outcomes and (gathered or is_urgent)):
            free_slots = max(0, slots - count) if room else 0
            request = FetchRequest(lease, min(room, in_flight.max_fetch), free_slots, lease.take_outcomes())
            in_flight.outcomes_taken.set()
            return request
    return None


def make_pipelined_request(
    in_flight: InFlightMessages, active: Set[str], wait_ends_at: float
) -> FetchRequest | None:
    """Return the fetch call to pipeline behind a blocking pop that ends at `wait_ends_at`.

    The server carries it out when the pop ends. None unless the process consumes one queue (`active`),
    requests several messages at a time, has a free slot and a lease, has measured the server's clock lately,
    and has no set time to fetch before the pop ends (monotonic seconds). Under an in-flight limit nothing is
    pipelined, because the call that settles fetches.
    """
    if len(active) != 1 or in_flight.may_fetch is not None or in_flight.max_fetch == 1:
        return None
    [queue] = active
    lease, free_slots = in_flight.leases[queue], in_flight.capacity[0] - in_flight.count
    if not lease.registered or lease.lease_lost or wait_ends_at - lease.clocked_at >= CLOCK_FRESH_SECONDS:
        return None
    if lease.is_limited or 0.0 < lease.fetch_at <= wait_ends_at or free_slots <= 0:
        return None
    credit = min(in_flight.room, in_flight.max_fetch)
    return FetchRequest(lease, credit, free_slots, [], None, lease.consumer)


def push_wake_token(store: Store, wake_key: str) -> None:
    """Push a wake token to a wake list, so that the server ends a wait that names it.

    The wait and the fetch call behind it get their replies as always, so no token and no message is lost. If
    the server refuses the token, as when it is out of memory, the wait lasts until its time-out.
    """
    with suppress(ResponseError):
        store.client.lpush(wake_key, 1)
        store.client.pexpire(wake_key, WAKE_TOKEN_MS)  # the wait may have ended by another token


def _queues_in_order(in_flight: InFlightMessages, now: float) -> Iterator[str]:
    """Yield the queues in the order in which `take_next_request` considers them for a call."""
    order = in_flight.fetch_order
    if in_flight.queue_order == "round_robin":
        for _ in range(len(order)):
            queue = order[0]
            order.rotate(-1)
            yield queue
        return
    # Queues with overdue outcomes come first. Else a first queue that always has messages would delay them.
    for queue in tuple(order):
        lease = in_flight.leases[queue]
        if lease.outcomes and now - lease.outcomes_since >= 2 * GATHERED_SECONDS:
            yield queue
    yield from sorted(order) if in_flight.queue_order == "sorted" else tuple(order)


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
        if delivery.needs_notice:
            action = f"notice {action}"
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


def dead_letter_by_log(delivery: Delivery, reason: str, error: object) -> None:
    """Log that a message becomes a dead letter, and queue that outcome. No result backend is notified."""
    logger.error("Message %s dead-lettered: %s: %s", delivery.message.id or "?", reason, error)
    assert delivery.lease is not None
    delivery.lease.queue_outcome(delivery, DeadLetter(reason, str(error)))


def accept_messages(
    lease: QueueLease,
    reply: Reply,
    deliver: Callable[[Delivery], None],
    *,
    keeps_errors: bool = True,
    dead_letter: Callable[[Delivery, str, object], None] = dead_letter_by_log,
) -> None:
    """Register the fetched messages as in flight, and deliver each.

    `dead_letter` is called with the delivery, the reason and the error of a message that cannot be decoded,
    and the next message is delivered. The same is done if `deliver` raises an error and `keeps_errors` is
    True. An error of a connection is raised all the same. Without `keeps_errors` every error is raised, and
    the messages after it are released.
    """
    if reply.messages:
        lease.last_sequence = max(lease.last_sequence, int(reply.messages[-1].token.partition("/")[0]))
    clock_ms = lease.clock_ms
    registered = [
        _register_message(lease, reply, fetched, clock_ms, dead_letter) for fetched in reply.messages
    ]
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
            dead_letter(delivery, "invalid message", f"{type(error).__name__}: {error}")


def _register_message(
    lease: QueueLease,
    reply: Reply,
    fetched: Fetched,
    clock_ms: int,
    dead_letter: Callable[[Delivery, str, object], None],
) -> Delivery | None:
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
        dead_letter(delivery, error.reason, error)
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
