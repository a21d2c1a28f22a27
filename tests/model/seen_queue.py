"""Read where each message of a queue is on the server."""

from dataclasses import dataclass
from itertools import chain

from millpond.broker.connection import Store
from millpond.broker.keys import QueueKeys


@dataclass(frozen=True)
class Seen:
    """The contents of a queue on the server."""

    ready: list[list[str]]
    delayed: dict[tuple[int, str], int]
    dead: list[tuple[str, dict[str, str]]]
    leases: dict[str, float]
    held: dict[str, dict[str, str]]
    counters: dict[str, int]
    line: list[str]
    called: dict[str, str]

    def messages(self) -> list[str]:
        """List every message, wherever it is."""
        held = [message for hold in self.held.values() for message in hold.values()]
        letters = [fields["message"] for _, fields in self.dead]
        return [*chain(*self.ready), *(message for _, message in self.delayed), *held, *letters]


def look(store: Store, keys: QueueKeys, consumers: list[str]) -> Seen:
    """Read all of a queue."""
    with store.client.pipeline() as pipe:
        for ready in keys.ready:
            pipe.lrange(ready, 0, -1)
        pipe.zrange(keys.delayed, 0, -1, withscores=True).xrange(keys.dead)
        pipe.zrange(keys.consumers, 0, -1, withscores=True).hgetall(keys.counters)
        pipe.zrange(keys.waiters, 0, -1).hgetall(f"{keys.waiters}:called")
        for name in consumers:
            pipe.hgetall(keys.in_flight(name))
        answers = pipe.execute()
    ready_lists, (delayed, letters, leases, counters, line, called) = answers[:4], answers[4:10]
    holds = answers[10:]
    return Seen(
        [[m.decode() for m in reversed(each)] for each in ready_lists],
        {(int(entry[:1]), entry[1:].decode()): int(due) for entry, due in delayed},
        [(id.decode(), text(fields)) for id, fields in letters],
        {name.decode(): until for name, until in leases},
        {name: text(h) for name, h in zip(consumers, holds, strict=True) if h},
        {name: int(value) for name, value in text(counters).items()},
        [ticket.decode() for ticket in line],
        text(called),
    )


def text(pairs: dict[bytes, bytes]) -> dict[str, str]:
    """Decode a hash."""
    return {name.decode(): value.decode() for name, value in pairs.items()}
