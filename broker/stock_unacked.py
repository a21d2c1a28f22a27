"""Messages of stock workers that kombu's own Redis transport keeps as unacknowledged.

kombu keeps them in one hash for all queues of a database, without the name of the worker that has them. A
message with an `eta` is there too, for as long as a stock worker keeps it in its memory.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import SEPARATOR, QueueKeys, step_of
from millpond.broker.message import Message
from millpond.broker.scripts import script

#: Messages moved in one call: the server runs nothing else meanwhile.
PAGE = 100


@dataclass(frozen=True)
class Unacked:
    """A message that a stock worker has, or had, under kombu's delivery `tag`.

    `since` is when the worker fetched it (seconds since 1970, by that worker's clock).
    """

    tag: str
    queue: str
    message: Message
    since: float


def read_unacked(store: Store, queues: Iterable[str] = ()) -> Iterator[Unacked]:
    """Yield the unacknowledged messages of these queues, or of all queues if none is named.

    A message that cannot be read is left out. A message of several queues is yielded once for each.
    """
    wanted = set(queues)
    bindings: dict[str, list[tuple[str, str, str]]] = {}
    with translate_errors("reading the unacknowledged messages of stock workers"):
        times: dict[str, float] = {
            tag.decode(): at
            for tag, at in store.client.zrange(f"{store.prefix}unacked_index", 0, -1, withscores=True)
        }
        for tag, text in store.client.hscan_iter(f"{store.prefix}unacked", count=PAGE):
            try:
                raw, exchange, routing_key = json.loads(text)
                message = Message.decode(json.dumps(raw))
            except (ValueError, TypeError, RecursionError):
                continue
            for queue in _routed_queues(store, exchange, routing_key, bindings):
                if not wanted or queue in wanted:
                    yield Unacked(tag.decode(), queue, message, times.get(tag.decode(), 0.0))


def take_in(store: Store, messages: Iterable[Unacked]) -> int:
    """Move unacknowledged messages to the head of their queues, the oldest first, and return their number.

    No delivery is counted. Messages that a worker has acknowledged meanwhile are not moved.
    """
    by_queue: dict[str, list[Unacked]] = {}
    for unacked in sorted(messages, key=lambda unacked: -unacked.since):
        by_queue.setdefault(unacked.queue, []).append(unacked)
    moved = 0
    with translate_errors("taking in messages of stock workers"):
        for queue, newest_first in by_queue.items():
            keys = QueueKeys(queue, store.prefix).for_scripts
            stock_keys = (f"{store.prefix}unacked", f"{store.prefix}unacked_index")
            for start in range(0, len(newest_first), PAGE):
                args: list[Any] = []
                for unacked in newest_first[start : start + PAGE]:
                    args += (unacked.tag, step_of(unacked.message.priority), unacked.message.text)
                moved += int(script("take_in").run(store.client, (*keys, *stock_keys), args))
    return moved


def hand_back(store: Store, queue: str) -> int:
    """Move the delayed messages of a queue to its ready lists, for stock workers. Return their number."""
    keys, moved = QueueKeys(queue, store.prefix), 0
    with translate_errors(f"handing back the delayed messages of {queue!r}"):
        while page := int(script("hand_back").run(store.client, keys.for_scripts, (PAGE,))):
            moved += page
    return moved


def _routed_queues(
    store: Store, exchange: str, routing_key: str, bindings: dict[str, list[tuple[str, str, str]]]
) -> list[str]:
    """Return the queues to which kombu routes a message with this routing key.

    Without an exchange, the key is the name of the queue. The bindings of an exchange are read once, into
    `bindings`: exchange -> (routing key, pattern, queue) of each.
    """
    if not exchange:
        return [routing_key]
    if exchange not in bindings:
        members = store.client.smembers(f"{store.prefix}_kombu.binding.{exchange}")
        rows = (member.decode().split(SEPARATOR) for member in members)
        bindings[exchange] = [(row[0], row[1], row[2]) for row in rows if len(row) == 3]
    return sorted(
        {
            queue
            for bound_key, pattern, queue in bindings[exchange]
            if bound_key == routing_key or (pattern and re.match(pattern, routing_key))
        }
    )
