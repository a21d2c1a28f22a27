"""Search dead letters in several queues, and requeue or purge them, for the page of dead letters."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters
from millpond.broker.inspect.dead_letters import DeadLetter

Action = Callable[[Store, str, str], bool]

#: Name of an action -> the function that applies it to one dead letter, and its past tense.
ACTIONS: dict[str, tuple[Action, str]] = {
    "requeue": (dead_letters.requeue, "requeued"),
    "purge": (dead_letters.purge, "purged"),
}


@dataclass(frozen=True)
class Search:
    """The filters of a search.

    A filter that is None matches any dead letter. Times are ms of the server's clock.
    """

    queues: tuple[str, ...]
    kind: str | None = None
    reason: str | None = None
    task_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def matching_letters(self, store: Store) -> Iterator[DeadLetter]:
        """Yield the dead letters that match all filters, queue by queue, in each the newest first."""
        for queue in self.queues:
            yield from dead_letters.read_dead_letters(
                store,
                queue,
                kind=self.kind,
                reason=self.reason,
                task_id=self.task_id,
                since_ms=self.since_ms,
                until_ms=self.until_ms,
                newest_first=True,
            )


def is_letter_id(text: str) -> bool:
    """True if a text has the form of a dead letter's id, which is that of a Redis stream: time-number."""
    return re.fullmatch(r"[0-9]{1,19}-[0-9]{1,19}", text) is not None  # both fit into 64 bits


def apply_action(store: Store, action_name: str, letters: Iterable[tuple[str, str]]) -> int:
    """Requeue or purge dead letters, each given by its queue and id. `action_name` is a key of `ACTIONS`.

    Return the number of those that were still there.
    """
    action, _past_tense = ACTIONS[action_name]
    return sum(action(store, queue, letter_id) for queue, letter_id in letters)
