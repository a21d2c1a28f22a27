"""Speak `turn.lua`: write the call of a turn, read its reply, deliver what was fetched."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import Holder
from millpond.broker.consume.queue_lease import Hold, Turn
from millpond.broker.due import due_ms as due_ms
from millpond.broker.keys import epoch_key
from millpond.broker.outcomes import Settlement
from millpond.broker.parsing import parse
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
    for token, held, s in turn.settlements:
        args += (token, s.action, held.batch, held.id, s.state, s.detail, s.due_ms, s.text, held.claim)
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
    for _token, held, _settlement in turn.settlements:
        if held.on_settled is not None:
            held.on_settled()
    if turn.credit:
        hold.hungry = reply.next_ms == 0
        hold.look_at = time.monotonic() + reply.next_ms / 1000 if reply.next_ms > 0 else 0.0


def accept(hold: Hold, reply: Reply, deliver: Callable[[dict[str, Any], str], None]) -> None:
    """Take what was fetched into the hold and deliver each message.

    A message that cannot be delivered is buried with the reason, whatever is wrong with it, and the next
    one follows.
    """
    clock_ms = hold.clock_ms
    for fetched, message in _readable(hold, reply):
        try:
            _prepare(hold, fetched, message, clock_ms)
            due = due_ms(message["headers"])
            if due is not None and due > reply.now_ms + DUE_SOON_MS:
                hold.settle(fetched.token, Settlement("delay", due_ms=due))
                continue
            message["headers"]["eta"] = None
            message["headers"]["millpond"]["due"] = due
            deliver(message, hold.queue)
        except (OSError, RedisError):
            # The connection broke before the message was passed on; unknown here, it goes back on resuming.
            hold.held.pop(fetched.token, None)
            raise
        except Exception as error:
            hold.settle(fetched.token, buried("invalid message", f"{type(error).__name__}: {error}"))


def buried(reason: str, error: str, **more: Any) -> Settlement:
    """Return the settlement that moves a message to the dead letters; `error` is one line."""
    return Settlement("bury", "failed", json.dumps({"error": error, **more}), text=reason)


def _readable(hold: Hold, reply: Reply) -> Iterator[tuple[Fetched, dict[str, Any]]]:
    """Yield what is JSON and has the parts of a message; bury the rest."""
    for fetched in reply.messages:
        try:
            message = parse(fetched.payload)
            if not isinstance(message["properties"], dict) or not isinstance(message["headers"], dict):
                raise TypeError("properties and headers must be objects")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            hold.take(fetched.token, id="", batch=None)
            hold.settle(fetched.token, buried("not a message", f"{type(error).__name__}: {error}"))
        else:
            yield fetched, message


def _prepare(hold: Hold, fetched: Fetched, message: dict[str, Any], clock_ms: int) -> None:
    """Take a message into the hold, and write into it what its delivery adds: its tag, and the count."""
    headers, properties = message["headers"], message["properties"]
    own = headers.get("millpond")
    own = own if isinstance(own, dict) else {}
    batch = own.get("batch")
    hold.take(
        fetched.token,
        id=str(headers.get("id", "")),
        batch=batch if isinstance(batch, str) else None,
        claim=str(own.get("once", "")),
    )
    headers["millpond"] = {**own, "deliveries": fetched.deliveries, "clock_ms": clock_ms}
    properties["delivery_tag"] = hold.tag(fetched.token)
    info = properties.get("delivery_info")
    properties["delivery_info"] = {
        **(info if isinstance(info, dict) else {"exchange": "", "routing_key": hold.queue}),
        "redelivered": fetched.deliveries > 0,
    }
