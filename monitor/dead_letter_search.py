"""Search dead letters in several queues, and requeue or purge them, for the page of dead letters."""

import re
from collections.abc import Callable, Iterable, Iterator

from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters
from millpond.broker.inspect.dead_letters import DeadLetter, LetterFilter

Action = Callable[[Store, str, str], bool]

#: Name of an action -> the function that applies it to one dead letter, and its past tense.
ACTIONS: dict[str, tuple[Action, str]] = {
    "requeue": (dead_letters.requeue, "requeued"),
    "purge": (dead_letters.purge, "purged"),
}


def search_letters(store: Store, queues: Iterable[str], wanted: LetterFilter) -> Iterator[DeadLetter]:
    """Yield the wanted dead letters, queue by queue, in each the newest first."""
    for queue in queues:
        yield from dead_letters.read_dead_letters(store, queue, wanted, newest_first=True)


def is_letter_id(text: str) -> bool:
    """True if a text has the form of a dead letter's id, which is that of a Redis stream: time-number."""
    return re.fullmatch(r"[0-9]{1,19}-[0-9]{1,19}", text) is not None  # both fit into 64 bits


def apply_action(store: Store, action_name: str, letters: Iterable[tuple[str, str]]) -> int:
    """Requeue or purge dead letters, each given by its queue and id. `action_name` is a key of `ACTIONS`.

    Return the number of those that were still there.
    """
    action, _past_tense = ACTIONS[action_name]
    return sum(action(store, queue, letter_id) for queue, letter_id in letters)
