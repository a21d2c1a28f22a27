"""How many messages a process fetches beyond its slots: those that it will start within moments.

The depth of the prefetch is the number of tasks that the process ends in `SOON_SECONDS`, at most the setting:
so a pool of long tasks prefetches nothing, and what other processes could run does not wait here. A task that
turns out long meets a few messages that were fetched behind it: once the first of these has waited for
`WAITED_SECONDS`, and one still has a moment later, all go back to the head of the queue, no delivery counted.
A process that only stood still, as on a busy machine, has started them by then.
"""

import math
from collections.abc import Callable, Iterable
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Protocol

from millpond.broker.delivery import Delivery

#: A message is prefetched if it will start within this time.
SOON_SECONDS = 0.05

#: How long ends are counted for the rate, unless so many come sooner; what took longer than the second is of
#: a process that stood.
COUNTED_SECONDS, STOOD_SECONDS = 0.1, 0.5
COUNTED_ENDS = 16

#: How long a message waits for a slot before it may have to go back, and when that is looked at again.
WAITED_SECONDS = 0.06
AGAIN_SECONDS = 0.02


class WaitingLine(Protocol):
    """The tasks of a process that wait for a slot."""

    #: Returns how many tasks run at once, of the messages that the consumer may have; None: as many.
    slots: Callable[[int], int] | None

    def give_back(self) -> int:
        """Release the messages of all tasks that wait, the newest first; return their number."""


class Prefetch:
    """The prefetch of one process, learnt from the rate at which its tasks end."""

    def __init__(self) -> None:
        #: The tasks that wait for a slot; None where that is not known: then the prefetch is always the most.
        self.line: WaitingLine | None = None
        #: The most messages beyond the slots; all that are set until tasks turn out long.
        self.depth = math.inf
        #: Ends since the count began.
        self.ended = 0
        self._since = 0.0
        #: True if all slots were busy whenever it was looked at since then.
        self._was_full = False
        #: Messages that went back because they waited.
        self.given_back = 0
        #: When to look for messages that wait (monotonic seconds).
        self.look_at = 0.0
        self._pause = AGAIN_SECONDS
        #: True if a message had waited too long at the last look.
        self._waited = False

    def slots(self, granted: int) -> int:
        """Return how many tasks run at once, of the messages that a consumer may have."""
        line = self.line
        return granted if line is None or line.slots is None else line.slots(granted)

    def allowed(self, most: int) -> int:
        """Return the number of messages that may be fetched beyond the slots, at most `most`."""
        return most if self.line is None or self.depth >= most else int(self.depth)

    def measure(self, now: float, *, is_full: bool) -> None:
        """Set the depth by the rate of ends; where slots were free meanwhile, it only deepens."""
        self._was_full = self._was_full and is_full
        seconds = now - self._since
        if seconds < COUNTED_SECONDS and self.ended < COUNTED_ENDS:
            return
        if seconds < STOOD_SECONDS:
            soon = int(self.ended / max(seconds, 0.001) * SOON_SECONDS)
            if soon > self.depth or self._was_full:
                self.depth = soon
        self._since, self.ended, self._was_full = now, 0, is_full

    def give_back_in_time(self, queues: Iterable[Iterable[Delivery]], slots: int, now: float) -> None:
        """Give back what waits if the first of it has waited too long, and note when to look again.

        `queues` are the messages of the process that are in flight, of each queue the oldest first. Given
        back, nothing is prefetched before tasks end soon again.
        """
        first = next(islice(merge(*queues, key=attrgetter("fetched_at")), slots, None), None)
        if first is None or self.line is None:
            self._waited = False
            return
        self.look_at = max(first.fetched_at + WAITED_SECONDS, now + AGAIN_SECONDS)
        waits, waited = now >= first.fetched_at + WAITED_SECONDS, self._waited
        self._waited = waits
        if not (waits and waited):
            return
        count = self.line.give_back()
        # Of some pools nothing can be taken: these are tried less and less often.
        self._pause = AGAIN_SECONDS if count else min(1.0, 2 * self._pause)
        self.look_at = now + self._pause
        if count:
            self.given_back += count
            self.depth, self._since, self.ended, self._waited = 0, now, 0, False
