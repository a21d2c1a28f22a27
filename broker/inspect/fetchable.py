"""Look whether there is something to fetch, as a worker that is asked for its health does."""

from collections.abc import Sequence

from millpond.broker.connection import Store, clear_errors
from millpond.broker.keys import QueueKeys
from millpond.broker.limits import Limits, read_all


def something_to_fetch(store: Store, queues: Sequence[str]) -> list[Limits]:
    """Return the limits of those queues of which a consumer with room could fetch something now.

    Not of a paused one, nor of one whose in-flight limit is reached. Under a rate the next token may be some
    way off: the caller is told the rate and judges how long to wait.
    """
    found = zip(_counts(store, queues), read_all(store, queues), strict=True)
    return [
        limits
        for (ready, held), limits in found
        if ready and not limits.paused and not (limits.in_flight and held >= limits.in_flight)
    ]


def _counts(store: Store, queues: Sequence[str]) -> list[tuple[int, int]]:
    """Return of each queue how many messages are ready, and how many are held by anybody."""
    keys = [QueueKeys(queue, store.prefix) for queue in queues]
    with clear_errors("looking for something to fetch"), store.client.pipeline(transaction=False) as pipe:
        for key in keys:
            for ready in key.ready:
                pipe.llen(ready)
            pipe.zrange(key.consumers, 0, -1)
        answers = pipe.execute()
        width = len(keys[0].ready) + 1 if keys else 1
        rows = [answers[i : i + width] for i in range(0, len(answers), width)]
        for key, row in zip(keys, rows, strict=True):
            for consumer in row[-1]:
                pipe.hlen(key.held(consumer.decode()))
        held = iter(pipe.execute())
    return [(sum(row[:-1]), sum(next(held) for _ in row[-1])) for row in rows]
