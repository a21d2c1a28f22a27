"""How many messages a process fetches beyond its slots: those that it will start within moments.

The depth of the prefetch is the number of tasks that the process ends in `SOON_SECONDS`, at most the setting:
so a pool of long tasks prefetches nothing, and tasks that other processes could run do not wait here. A task
that turns out long has a few messages behind it. If the first of these has waited for `WAITED_SECONDS` at two
looks in a row, all are released. A process that only stood still, as on a busy machine, has started them by
the second look.
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

#: How long ends are counted for the rate, unless `COUNTED_ENDS` come sooner. A count that took longer than
#: `STOOD_SECONDS` is ignored: the process stood still.
COUNTED_SECONDS, STOOD_SECONDS = 0.1, 0.5
COUNTED_ENDS = 16

#: How long a message waits for a slot before it may be released, and the time between two looks.
WAITED_SECONDS = 0.06
AGAIN_SECONDS = 0.02


class WaitingLine(Protocol):
    """The tasks of a process that wait for a slot."""

    #: Returns how many tasks run at once if the consumer may have this many messages. None if all of them do.
    slots: Callable[[int], int] | None

    def release_waiting(self) -> int:
        """Release the messages of all tasks that wait, the newest first, and return their number."""


class Prefetch:
    """The prefetch of one process, learnt from the rate at which its tasks end."""

    def __init__(self) -> None:
        #: The tasks that wait for a slot; None if not known: then the prefetch is always the maximum.
        self.line: WaitingLine | None = None
        #: The maximum of messages beyond the slots; the setting alone bounds it until tasks turn out long.
        self.depth = math.inf
        #: Ends since the count began.
        self.ended = 0
        self._since = 0.0
        #: True if all slots were busy whenever it was looked at since then.
        self._was_full = False
        #: Messages that were released because they waited.
        self.released = 0
        #: The time of the next look for messages that wait (monotonic seconds).
        self.look_at = 0.0
        self._pause = AGAIN_SECONDS
        #: True if a message had waited too long at the last look.
        self._waited = False

    def slots(self, granted: int) -> int:
        """Return how many tasks run at once if the consumer may have `granted` messages."""
        line = self.line
        return granted if line is None or line.slots is None else line.slots(granted)

    def allowed_count(self, max_count: int) -> int:
        """Return the number of messages that may be fetched beyond the slots, at most `max_count`."""
        return max_count if self.line is None or self.depth >= max_count else int(self.depth)

    def measure(self, now: float, *, is_full: bool) -> None:
        """Set the depth by the rate of ends. If slots were free meanwhile, the depth can only grow."""
        self._was_full = self._was_full and is_full
        seconds = now - self._since
        if seconds < COUNTED_SECONDS and self.ended < COUNTED_ENDS:
            return
        if seconds < STOOD_SECONDS:
            soon = int(self.ended / max(seconds, 0.001) * SOON_SECONDS)
            if soon > self.depth or self._was_full:
                self.depth = soon
        self._since, self.ended, self._was_full = now, 0, is_full

    def release_overdue(self, queues: Iterable[Iterable[Delivery]], slots: int, now: float) -> None:
        """Release the tasks that wait for a slot if the first has waited too long.

        That is `WAITED_SECONDS` at two looks in a row. `queues` are the messages in flight of each queue, the
        oldest first. `now` is monotonic seconds. Prefetching starts again when tasks end quickly.
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
        count = self.line.release_waiting()
        # Some pools release nothing: these are tried less and less often.
        self._pause = AGAIN_SECONDS if count else min(1.0, 2 * self._pause)
        self.look_at = now + self._pause
        if count:
            self.released += count
            self.depth, self._since, self.ended, self._waited = 0, now, 0, False
