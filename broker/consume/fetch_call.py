"""Speak `turn.lua`: write the call of a turn, read its reply, deliver what was fetched."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import Holder
from millpond.broker.consume.queue_lease import Hold, Turn
from millpond.broker.delivery import Delivery
from millpond.broker.keys import batch_key, epoch_key
from millpond.broker.message import Message
from millpond.broker.outcomes import DeadLetter, Delay, encode
from millpond.broker.scripts import script

#: A message that is due within this many ms is run at once; a clock tells no finer.
DUE_SOON_MS = 2


@dataclass(frozen=True, slots=True)
class Fetched:
    """Hold one message of a reply: its token, how often it was delivered before, and itself."""

    token: str
    deliveries: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """Hold what a turn brought; `lease` is False when it had run out, and then nothing was done."""

    now_ms: int
    lease: bool
    late: int
    next_ms: int
    epoch: int
    messages: list[Fetched]


def command(turn: Turn, *, lease_ms: int, epoch: int = 0) -> tuple[Any, ...]:
    """Return the words of the call."""
    hold = turn.hold
    keys = (*hold.keys.all, hold.keys.bucket, epoch_key(hold.keys.prefix))
    args: list[Any] = [
        hold.consumer,
        lease_ms,
        turn.credit,
        turn.free_slots,
        "0" if hold.registered else "1",
        hold.keys.prefix,
        epoch,
        "" if hold.announced == hold.consumer else hold.kinds,
    ]
    for delivery, outcome in turn.settlements:
        message, (action, state, detail, due_ms, text) = delivery.message, encode(outcome)
        batch = batch_key(message.batch, hold.keys.prefix)
        args += (delivery.token, action, batch, message.id, state, detail, due_ms, text, message.unique_key)
    return script("turn").command(keys, args)


def read(raw: list[Any]) -> Reply:
    """Read the reply of a call."""
    now_ms, lease, late, next_ms, epoch, *rest = raw
    messages = [Fetched(rest[i].decode(), rest[i + 1], rest[i + 2]) for i in range(0, len(rest), 3)]
    return Reply(now_ms, lease == 1, late, next_ms, int(epoch), messages)


def call(store: Store, turn: Turn, *, lease_ms: int) -> Reply:
    """Make a turn and wait for its reply; when there is none, its settlements are to be sent again."""
    words = command(turn, lease_ms=lease_ms)
    keys = words[3 : 3 + words[2]]
    try:
        reply = read(script("turn").run(store.client, keys, words[3 + len(keys) :]))
    except BaseException:
        turn.hold.unsent(turn.settlements)
        raise
    note(turn, reply)
    return reply


def settle_pending(store: Store, holder: Holder, *, lease_ms: int) -> None:
    """Send every settlement that waits to be sent, and fetch nothing."""
    for hold in holder.holds.values():
        while hold.pending:
            call(store, Turn(hold, 0, 0, hold.settlements(100)), lease_ms=lease_ms)


def note(turn: Turn, reply: Reply) -> None:
    """Remember what the reply says of the queue: whether to look again, and when."""
    hold = turn.hold
    hold.registered, hold.announced = True, hold.consumer
    hold.late += reply.late
    if turn.asked_ms is not None:
        hold.clocks.append(reply.now_ms - turn.asked_ms)
        hold.clocked_at = time.monotonic()
    for delivery, _outcome in turn.settlements:
        if delivery.on_settled is not None:
            delivery.on_settled()
    if turn.credit:
        hold.hungry = reply.next_ms == 0
        hold.look_at = time.monotonic() + reply.next_ms / 1000 if reply.next_ms > 0 else 0.0


def accept(hold: Hold, reply: Reply, deliver: Callable[[dict[str, Any], str], None]) -> None:
    """Take what was fetched into the hold and deliver each message.

    A message that cannot be delivered is buried with the reason, whatever is wrong with it, and the next
    one follows.
    """
    clock_ms = hold.clock_ms
    for fetched in reply.messages:
        delivery = Delivery(
            UNREADABLE,
            queue=hold.queue,
            token=fetched.token,
            deliveries=fetched.deliveries,
            clock_ms=clock_ms,
        )
        hold.take(delivery)
        try:
            message = delivery.message = Message.decode(fetched.payload)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            hold.settle(delivery, DeadLetter("not a message", f"{type(error).__name__}: {error}"))
            continue
        try:
            due_ms = delivery.due_ms = message.due_ms
            if due_ms is not None and due_ms > reply.now_ms + DUE_SOON_MS:
                hold.settle(delivery, Delay(due_ms))
            else:
                deliver(_for_kombu(delivery), hold.queue)
        except (OSError, RedisError):
            # The connection broke before the message was passed on; unknown here, it goes back on resuming.
            hold.held.pop(fetched.token, None)
            raise
        except Exception as error:
            hold.settle(delivery, DeadLetter("invalid message", f"{type(error).__name__}: {error}"))


def _for_kombu(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as kombu passes it on: its message, with what this delivery adds."""
    message = delivery.message
    info = message.properties.get("delivery_info")
    properties = {
        **message.properties,
        "delivery_tag": delivery.tag,
        "delivery_info": {
            **(info if isinstance(info, dict) else {"exchange": "", "routing_key": delivery.queue}),
            "redelivered": delivery.deliveries > 0,
        },
    }
    return {**message.envelope, "properties": properties, "delivery": delivery}


#: What stands for a message until it is read, and if it cannot be.
UNREADABLE = Message({"headers": {}, "properties": {}}, b"")
