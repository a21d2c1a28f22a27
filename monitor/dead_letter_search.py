"""Search the dead letters of queues, and act on what was found: what the page and `millpond dead` do."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters
from millpond.broker.inspect.dead_letters import DeadLetter

Act = Callable[[Store, str, str], bool]

#: What can be done with a dead letter, and how it is told afterwards.
ACTS: dict[str, tuple[Act, str]] = {
    "requeue": (dead_letters.requeue, "requeued"),
    "purge": (dead_letters.purge, "purged"),
}


@dataclass(frozen=True)
class Search:
    """Say which dead letters are wanted; None is any. Times are ms by the server's clock."""

    queues: tuple[str, ...]
    kind: str | None = None
    reason: str | None = None
    task_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def found(self, store: Store) -> Iterator[DeadLetter]:
        """Yield what fits, queue by queue, the newest first."""
        for queue in self.queues:
            yield from dead_letters.letters(
                store,
                queue,
                kind=self.kind,
                reason=self.reason,
                task_id=self.task_id,
                since_ms=self.since_ms,
                until_ms=self.until_ms,
                newest_first=True,
            )


def act(store: Store, name: str, chosen: Iterable[tuple[str, str]]) -> int:
    """Requeue or purge dead letters, by their (queue, id); return how many were still there."""
    do, _done = ACTS[name]
    return sum(do(store, queue, id) for queue, id in list(chosen))
