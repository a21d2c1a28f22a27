"""Measure whether a pool's throughput grows with its slots: e = d ln X / d ln N.

An in-flight limit leaves a part of the slots idle in some windows of time, and none in others, in random
order. The numbers of tasks that ended in these windows are compared, as the server counts them. All windows
have a limit, so that the missing prefetch costs each the same. (Netflix's and Envoy's adaptive concurrency
limits throttle for the same reason.) The limit ends by itself, even if the process that probes is killed.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.inspect.depth import read_depths
from millpond.broker.keys import QueueKeys, queues_key
from millpond.broker.scripts import script
from millpond.broker.server import server_time_ms
from millpond.broker.stats.elasticity import STEP_LEAST, Elasticity

#: The parts of the slots that are compared with all of them. With a dependency that serves nearly as many
#: calls at once as there are slots, throughput still grows from HALF to all, but not in the last step, from
#: STEP to all.
HALF, STEP = 0.5, 0.75

#: The first turns compare all three limits. Later turns compare all slots with the part that is in doubt.
TURNS_OF_ALL = 2

#: The length of a window is SERVICE_TIMES mean service times, at least LEAST_SECONDS and at most
#: MOST_SECONDS.
LEAST_SECONDS, SERVICE_TIMES, MOST_SECONDS = 1.5, 4, 30.0

#: A run that takes longer than LONG_RUN_SECONDS is long. Long runs are measured in windows of
#: LONG_SERVICE_TIMES mean service times, and first with two limits only: a turn of three windows would take
#: minutes.
LONG_RUN_SECONDS, LONG_SERVICE_TIMES = 0.75, 3

#: The interval is of 90 %.
Z = 1.645

#: Student's t for an interval of 90 %, by the number of pairs of windows. For more pairs, Z is used.
_STUDENT = {2: 6.31, 3: 2.92, 4: 2.35, 5: 2.13, 6: 2.02, 7: 1.94, 8: 1.89}


@dataclass
class _Window:
    """A window of time under one in-flight limit: the number of tasks that ended in it, and its length."""

    ends: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """The tasks that ended in a second."""
        return self.ends / self.seconds if self.seconds else 0.0


#: One turn: in-flight limit -> its window.
_Turn = dict[int, _Window]


class Probe:
    """One measurement of a pool on whose queues more tasks are ready than its slots can run.

    `service_seconds` is the mean service time of its runs, and `free_rate` the tasks that ended in a second
    before the probe. `is_unchanged` returns False once the pool has other slots. `rng` and `sleep` are
    replaced in tests.
    """

    def __init__(
        self,
        store: Store,
        queues: Sequence[str],
        *,
        slots: int,
        service_seconds: float,
        rng: random.Random | None = None,
        sleep: Callable[[float], object] = time.sleep,
        is_unchanged: Callable[[], bool] = lambda: True,
        free_rate: float = 0.0,
    ) -> None:
        self._store = store
        self._queues = tuple(queues)
        self._slots = slots
        self._service_seconds = service_seconds
        self._window_seconds = _window_seconds(service_seconds)
        self._rng = rng or random.Random()
        self._sleep = sleep
        self._is_unchanged = is_unchanged
        self._free_rate = free_rate
        #: The number of tasks that had ended at the start, and the server's time then, ms.
        self._first = (0, 0)
        #: The cost of the run, successful or not: the tasks that did not end because of it, divided by the
        #: rate.
        self.cost_seconds = 0.0

    def run(self, *, max_seconds: float = 60.0) -> Elasticity | None:
        """Measure until the result decides, for about `max_seconds` at most, and return the elasticity.

        Returns None if the ready tasks run out, if more tasks than the limits allow are in flight, as when
        another process probes too, or if the pool has changed.
        """
        begun = time.monotonic()
        self._first = self._count_ended()
        half, step = max(1, int(self._slots * HALF)), min(self._slots - 1, math.ceil(self._slots * STEP))
        turns: list[_Turn] = []
        result: Elasticity | None = None
        try:
            while (
                turn := self._measure_turn(self._limits_of_turn(half, step, result, len(turns)))
            ) is not None:
                if not self._is_unchanged():
                    return None
                turns.append(turn)
                seconds = time.monotonic() - begun
                result = self._make_elasticity(turns, half, step, seconds)
                if (len(turns) >= 2 and result.decides) or seconds * (1 + 1 / len(turns)) > max_seconds:
                    break
        finally:
            for queue in self._queues:
                _limit_in_flight(self._store, queue, 0, 0)
            rate = max(self._free_rate, result.rate if result is not None else 0.0)
            lost = self._lost_ends(turns, result.rate if result is not None else 0.0)
            self.cost_seconds = lost / rate if rate else HALF * (time.monotonic() - begun)
        return result

    def _limits_of_turn(self, half: int, step: int, result: Elasticity | None, turns: int) -> set[int]:
        """Return the in-flight limits of the next turn. `turns` is the number of turns so far.

        If runs are long, the step is measured only after the comparison with half of the slots.
        """
        is_long = self._service_seconds > LONG_RUN_SECONDS
        if turns < TURNS_OF_ALL or result is None:
            return {self._slots, half} if is_long else {self._slots, half, step}
        if result.step is None:
            return {self._slots, step}
        return {self._slots, step if result.step < STEP_LEAST else half}

    def _measure_turn(self, limits: set[int]) -> _Turn | None:
        """Measure a window under each limit, in random order. Return None if one could not be measured."""
        turn: _Turn = {}
        for limit in self._rng.sample(sorted(limits), len(limits)):
            window = self._measure_window(limit)
            if window is None:
                return None
            turn[limit] = window
        return turn

    def _measure_window(self, limit: int) -> _Window | None:
        """Count the tasks that end under an in-flight limit, in one window.

        Return None if more tasks than the limit were in flight, or if the ready tasks ran out.
        """
        now_ms = server_time_ms(self._store)
        wait_seconds = self._seconds_until_limited(self._count_in_flight())
        until_ms = int((self._window_seconds + wait_seconds) * 1000) + 2_000
        shares = self._divide_limit(limit)
        for queue, max_count in zip(self._queues, shares, strict=True):
            _limit_in_flight(self._store, queue, max_count, now_ms + until_ms)
        deadline = time.monotonic() + wait_seconds
        max_in_flight = max(limit, sum(shares))
        while self._count_in_flight() > max_in_flight:
            if time.monotonic() >= deadline:
                return None
            self._sleep(0.02)
        # Wait until the tasks that the limit now admits have started.
        self._sleep(min(0.3, self._window_seconds / 5))
        first, began = self._count_ended()
        self._sleep(self._window_seconds)
        last, ended = self._count_ended()
        if not sum(self._queue_lengths()) or self._count_in_flight() > max_in_flight:
            return None
        return _Window(last - first, (ended - began) / 1000)

    def _seconds_until_limited(self, in_flight: int) -> float:
        """Return how long it may take, seconds, until enough tasks in flight have ended for a lower limit."""
        return 2.0 + 3 * self._service_seconds * max(1.0, in_flight / self._slots)

    def _divide_limit(self, limit: int) -> list[int]:
        """Divide the in-flight limit among the queues in proportion to their ready tasks, at least 1 each."""
        lengths = self._queue_lengths()
        total = sum(lengths) or 1
        shares = [max(1 if length else 0, round(limit * length / total)) for length in lengths]
        while sum(shares) > limit and max(shares) > 1:
            shares[shares.index(max(shares))] -= 1
        return [share or 1 for share in shares]

    def _make_elasticity(self, turns: Sequence[_Turn], half: int, step: int, seconds: float) -> Elasticity:
        """Return the elasticity between half and all slots, and that of the last step."""
        value, error, rate, part_rate = self._elasticity_between(turns, half)
        lost = self._lost_ends(turns, rate)
        result = Elasticity(
            value, error, self._slots, half, rate, part_rate, seconds, lost, server_time_ms(self._store),
            self._service_seconds,
        )  # fmt: skip
        if step == half or not any(step in turn for turn in turns):
            return result
        value, error, _, step_rate = self._elasticity_between(turns, step)
        return replace(result, step=value, step_error=error, step_part=step, step_rate=step_rate)

    def _lost_ends(self, turns: Sequence[_Turn], rate: float) -> float:
        """Return by how many the tasks that ended were fewer because of the probe so far.

        This is the larger of two estimates. The first adds up the windows with a part of the slots, compared
        with the `rate` of all slots, and includes the waits between windows in proportion. The second
        compares all tasks that ended since the start with the rate before.
        """
        windows = [(limit, window) for turn in turns for limit, window in turn.items()]
        by_windows = sum(
            max(0.0, rate - window.rate) * window.seconds for limit, window in windows if limit != self._slots
        )
        ends, at_ms = self._count_ended()
        since = (at_ms - self._first[1]) / 1000
        by_windows *= max(1.0, since / (sum(window.seconds for _, window in windows) or since or 1.0))
        return max(0.0, by_windows, self._free_rate * since - (ends - self._first[0]))

    def _elasticity_between(self, turns: Sequence[_Turn], part: int) -> tuple[float, float, float, float]:
        """Return the elasticity between a part of the slots and all, its error, and both rates, all first."""
        pairs = [(turn[self._slots], turn[part]) for turn in turns if part in turn]
        with_all, with_part = _sum_windows(a for a, _ in pairs), _sum_windows(b for _, b in pairs)
        distance = math.log(self._slots / part)
        if not with_all.ends or not with_part.ends:
            return 0.0, math.inf, with_all.rate, with_part.rate
        growth = math.log(with_all.rate / with_part.rate)
        growths = [math.log(a.rate / b.rate) for a, b in pairs if a.ends and b.ends]
        poisson = Z * math.sqrt(1 / with_all.ends + 1 / with_part.ends)
        if len(growths) < 2:
            return growth / distance, 2 * poisson / distance, with_all.rate, with_part.rate
        mean = sum(growths) / len(growths)
        spread = math.sqrt(sum((each - mean) ** 2 for each in growths) / (len(growths) - 1) / len(growths))
        # Runs of equal length end more evenly than by chance (Poisson), and then the spread between the pairs
        # counts. The error is never much less than by chance, because few pairs may agree by chance.
        error = min(poisson, _STUDENT.get(len(growths), Z) * spread)
        error = max(error, Z * spread, poisson / 5)
        return growth / distance, error / distance, with_all.rate, with_part.rate

    def _count_in_flight(self) -> int:
        """Return the number of messages in flight on the pool's queues."""
        all_keys = [QueueKeys(queue, self._store.prefix) for queue in self._queues]
        with self._store.pipeline("counting the messages in flight", atomic=True) as pipe:
            for keys in all_keys:
                pipe.zrange(keys.consumers, 0, -1)
            for keys, consumers in zip(all_keys, pipe.execute(), strict=True):
                for consumer in consumers:
                    pipe.hlen(keys.in_flight(consumer.decode()))
            return sum(pipe.execute())

    def _queue_lengths(self) -> list[int]:
        """Return the number of ready messages of each queue."""
        return [depth.ready for depth in read_depths(self._store, self._queues)]

    def _count_ended(self) -> tuple[int, int]:
        """Return the number of runs that have ended so far, and the server's time in ms."""
        with self._store.pipeline("counting the runs that ended", atomic=True) as pipe:
            for queue in self._queues:
                pipe.hmget(QueueKeys(queue, self._store.prefix).counters, "settled", "dead", "retried")
            pipe.time()
            *counts, (seconds, micros) = pipe.execute()
        return sum(int(count or 0) for row in counts for count in row), seconds * 1000 + micros // 1000


def _window_seconds(service_seconds: float) -> float:
    """Return the length of a window for a mean service time.

    It is a whole number of service times: runs of equal length then end equally often in each window.
    """
    times = LONG_SERVICE_TIMES if service_seconds > LONG_RUN_SECONDS else SERVICE_TIMES
    times = max(1, min(times, int(MOST_SECONDS / max(service_seconds, 0.001))))
    return min(MOST_SECONDS, max(LEAST_SECONDS, times * service_seconds))


def longest_turn_seconds(service_seconds: float) -> float:
    """Return about how long a turn takes at most: its windows, each with the wait until its limit holds."""
    windows = 2 if service_seconds > LONG_RUN_SECONDS else 3
    return windows * (_window_seconds(service_seconds) + max(1.0, 3 * service_seconds) + 0.3)


def _sum_windows(windows: Iterable[_Window]) -> _Window:
    """Return one window with the ends and the seconds of all windows."""
    total = _Window()
    for window in windows:
        total.ends += window.ends
        total.seconds += window.seconds
    return total


def _limit_in_flight(store: Store, queue: str, max_count: int, until_ms: int) -> None:
    """Limit the in-flight tasks of a queue until a time, ms by the server's clock. 0 ends the limit."""
    value: Any = f"{max_count}@{until_ms}" if until_ms else ""
    keys = (*QueueKeys(queue, store.prefix).for_scripts, queues_key(store.prefix))
    with translate_errors(f"probing queue {queue!r}"):
        script("set_limits").run(store.client, keys, (queue, "probe", value))
