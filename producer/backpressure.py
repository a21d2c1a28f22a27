"""Offer messages to their queues, and do what the policy says when there is no room.

`reject` and `shed` are decided by the publish script. `block` waits here: a full queue is asked again with
few messages and with growing, jittered pauses, so that many producers that wait cost the server little.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence

from broker.connection import Store
from broker.messages import Outgoing
from broker.publishing import Full, Outcome, publish
from tasks.pools import Overflow

FIRST_PAUSE_SECONDS = 0.004
LONGEST_PAUSE_SECONDS = 0.25
MOST_AT_ONCE = 1_000


class Pace:
    """Remember, from chunk to chunk, how much room a blocked producer finds and how long it waits for it."""

    def __init__(self) -> None:
        self.at_once = MOST_AT_ONCE
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def learn(self, offered: int, taken: int) -> float:
        """Take note of how an offer went; return how many seconds to wait before the next."""
        if taken == offered:
            self.at_once = min(MOST_AT_ONCE, self.at_once * 4)
            return 0.0
        self.at_once = max(1, 2 * taken)
        if taken:
            self._pause_seconds = max(FIRST_PAUSE_SECONDS, self._pause_seconds / 2)
        else:
            self._pause_seconds = min(LONGEST_PAUSE_SECONDS, self._pause_seconds * 2)
        return self._pause_seconds * random.uniform(0.5, 1.0)


def offer(
    store: Store,
    messages: Sequence[Outgoing],
    *,
    overflow: Overflow,
    timeout_seconds: float | None,
    pace: Pace,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Outcome]:
    """Yield what became of each message, in order.

    `block` waits until there is room, or until nothing was taken for `timeout_seconds` (None: without end);
    what is left then is `Full`.
    """
    if overflow != "block":
        yield from publish(store, messages, policy=overflow)
        return
    known: dict[int, Outcome] = {}
    yielded, give_up_at = 0, _deadline(timeout_seconds)
    while yielded < len(messages):
        open_ = [i for i in range(yielded, len(messages)) if i not in known]
        is_last = time.monotonic() >= give_up_at
        turn = open_ if is_last else open_[: pace.at_once]
        answers = dict(zip(turn, publish(store, [messages[i] for i in turn], policy="block"), strict=True))
        decided = {i: answer for i, answer in answers.items() if not isinstance(answer, Full)}
        known.update(answers if is_last else decided)
        pause = pace.learn(len(turn), len(decided))
        while yielded in known:
            yield known.pop(yielded)
            yielded += 1
        if decided:
            give_up_at = _deadline(timeout_seconds)
        if pause and yielded < len(messages):
            sleep(min(pause, max(0.0, give_up_at - time.monotonic())))


def _deadline(timeout_seconds: float | None) -> float:
    return float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds
