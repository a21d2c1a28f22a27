"""How many messages a process fetches beyond its slots: those that it will start within moments.

The depth of the prefetch is the number of tasks that end in `SOON_SECONDS`, at most the setting. So a process
with long tasks prefetches nothing, and no task waits in it that other processes could run. Behind a task that
is longer than those before it a few messages may wait. If the first of these has waited for `WAITED_SECONDS`
at two checks in a row, all of them are released. After a pause of the whole process, as on a busy machine, it
has started them by the second check.
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

#: A measurement of the rate lasts this long, or until `COUNTED_ENDS` tasks have ended. If it took longer than
#: `STOOD_SECONDS`, it is ignored: the process did not run for a while.
COUNTED_SECONDS, STOOD_SECONDS = 0.1, 0.5
COUNTED_ENDS = 16

#: How long a message waits for a slot before it may be released, and the time between two checks.
WAITED_SECONDS = 0.06
AGAIN_SECONDS = 0.02


class WaitingTaskList(Protocol):
    """The tasks of a process that wait for a slot."""

    #: Returns how many of a number of slots can run a task now. None if all of them can.
    usable_slots: Callable[[int], int] | None

    def release_waiting(self) -> int:
        """Release the messages of all tasks that wait, the newest first, and return their number."""


class Prefetch:
    """The prefetch of one process, learned from the rate at which its tasks end."""

    def __init__(self) -> None:
        #: The tasks that wait for a slot. If it is None they are not known, and the prefetch is the maximum.
        self.waiting_tasks: WaitingTaskList | None = None
        #: The maximum of messages beyond the slots, an integer. At first there is none but the setting.
        self.depth = math.inf
        #: The number of tasks that have ended in this measurement, and when it began (monotonic seconds).
        self.ended = 0
        self._since = 0.0
        #: True if all slots were busy at each call of `measure` in this measurement.
        self._was_full = False
        #: The number of messages that were released because they waited.
        self.released = 0
        #: The time of the next check for messages that wait too long (monotonic seconds).
        self.check_at = 0.0
        self._pause = AGAIN_SECONDS
        #: True if a message had waited too long at the last check.
        self._waited = False

    def measure(self, now: float, *, is_full: bool) -> None:
        """End a measurement if it is time to, and set the depth by the rate at which tasks ended in it.

        If slots were free during the measurement, the depth can only grow. If the waiting tasks are not
        known, it stays infinite. `now` is monotonic seconds.
        """
        if self.waiting_tasks is None:
            return
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
        """Release the tasks that wait for a slot if the first of them has waited too long.

        That is `WAITED_SECONDS` at two checks in a row. After a release nothing is prefetched until tasks end
        quickly again. `queues` are the messages in flight of each queue, the oldest first. `now` is monotonic
        seconds.
        """
        first_waiting = next(islice(merge(*queues, key=attrgetter("fetched_at")), slots, None), None)
        if first_waiting is None or self.waiting_tasks is None:
            self._waited = False
            return
        overdue_at = first_waiting.fetched_at + WAITED_SECONDS
        self.check_at = max(overdue_at, now + AGAIN_SECONDS)
        is_overdue, was_overdue = now >= overdue_at, self._waited
        self._waited = is_overdue
        if not (is_overdue and was_overdue):
            return
        count = self.waiting_tasks.release_waiting()
        # From some pools no task can be released. There it is tried less and less often.
        self._pause = AGAIN_SECONDS if count else min(1.0, 2 * self._pause)
        self.check_at = now + self._pause
        if count:
            self.released += count
            self.depth, self._since, self.ended, self._waited = 0, now, 0, False
