"""Measure whether a pool's throughput grows with its slots: e = d ln X / d ln N, with slots idle in turns.

Windows alternate, at random, between all slots and a part of them. The server's own counts of ends are
compared, under an in-flight limit in both sorts of window, so that the missing prefetch costs both the same.
(Netflix's and Envoy's adaptive concurrency limits throttle for the same reason.) A prober that is killed
leaves nothing behind: the limit ends at its time.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import QueueKeys, queues_key
from millpond.broker.scripts import script
from millpond.broker.stats.elasticity import STEP_LEAST, Elasticity

#: The parts of the slots that are compared with all of them: half, and a step of a quarter. A dependency that
#: takes nearly as many at once as there are slots gains from half to all, and no more: the step shows it.
HALF, STEP = 0.5, 0.75

#: The number of turns that compare all limits. Later turns compare the limit that is in doubt.
TURNS_OF_ALL = 2

#: The shortest window (seconds), its length in mean service times, and the longest window (seconds).
LEAST_SECONDS, SERVICE_TIMES, MOST_SECONDS = 1.5, 4, 30.0

#: Runs that take longer than this (seconds) are measured in shorter windows (in mean service times), and all
#: slots are compared with half of them first: a turn of three windows would take minutes.
LONG_RUN_SECONDS, LONG_SERVICE_TIMES = 0.75, 3

#: The interval is of 90 %.
Z = 1.645

#: Student's t for an interval of 90 %, by the number of pairs of windows. For more pairs, Z is used.
_STUDENT = {2: 6.31, 3: 2.92, 4: 2.35, 5: 2.13, 6: 2.02, 7: 1.94, 8: 1.89}


@dataclass
class _Window:
    """The tasks that ended under one in-flight limit."""

    ends: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.ends / self.seconds if self.seconds else 0.0


#: One turn: the tasks that ended under each limit.
_Turn = dict[int, _Window]


class Probe:
    """One measurement of a pool that has more waiting than its slots can run."""

    def __init__(
        self,
        store: Store,
        queues: Sequence[str],
        *,
        slots: int,
        service_seconds: float,
        chance: random.Random | None = None,
        sleep: Callable[[float], object] = time.sleep,
        is_as_it_was: Callable[[], bool] = lambda: True,
        free_rate: float = 0.0,
    ) -> None:
        self._store = store
        self._queues = tuple(queues)
        self._slots = slots
        self._service_seconds = service_seconds
        self._window_seconds = _window_seconds(service_seconds)
        self._chance = chance or random.Random()
        self._sleep = sleep
        self._is_as_it_was = is_as_it_was
        self._free_rate = free_rate
        #: The number of ends and the server's time at the start, ms.
        self._first = (0, 0)
        #: The cost of the last run, successful or not, in seconds of the pool's rate.
        self.cost_seconds = 0.0

    def run(self, *, max_seconds: float = 60.0) -> Elasticity | None:
        """Measure for about `max_seconds` at most, and return the elasticity.

        Returns None if too few tasks are ready, if the limits do not hold because another process probes as
        well, or if the pool has changed meanwhile.
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
                if not self._is_as_it_was():
                    return None
                turns.append(turn)
                seconds = time.monotonic() - begun
                result = self._make_result(turns, half, step, seconds)
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
        """Return the limits of the next turn: all three at first, then the undecided ones.

        Of long runs, the step is measured once the comparison with half of the slots shows no saturation.
        """
        is_long = self._service_seconds > LONG_RUN_SECONDS
        if turns < TURNS_OF_ALL or result is None:
            return {self._slots, half} if is_long else {self._slots, half, step}
        if result.step is None:
            return {self._slots, step}
        return {self._slots, step if result.step < STEP_LEAST else half}

    def _measure_turn(self, limits: set[int]) -> _Turn | None:
        """Count the ends under each limit, in random order, or return None as `_measure_window` does."""
        turn: _Turn = {}
        for limit in self._chance.sample(sorted(limits), len(limits)):
            measured = self._measure_window(limit)
            if measured is None:
                return None
            turn[limit] = measured
        return turn

    def _measure_window(self, limit: int) -> _Window | None:
        """Count the ends under an in-flight limit. Return None if it was not kept or the queues ran empty."""
        now_ms, settling = _now_ms(self._store), self._settling_seconds(self._count_in_flight())
        until_ms = int((self._window_seconds + settling) * 1000) + 2_000
        shares = self._divide_limit(limit)
        for queue, max_count in zip(self._queues, shares, strict=True):
            _limit_in_flight(self._store, queue, max_count, now_ms + until_ms)
        deadline = time.monotonic() + settling
        max_in_flight = max(limit, sum(shares))
        while self._count_in_flight() > max_in_flight:
            if time.monotonic() >= deadline:
                return None
            self._sleep(0.02)
        self._sleep(min(0.3, self._window_seconds / 5))  # until those that are let in run as well
        first, began = self._count_ended()
        self._sleep(self._window_seconds)
        last, ended = self._count_ended()
        if not self._count_ready() or self._count_in_flight() > max_in_flight:
            return None
        return _Window(last - first, (ended - began) / 1000)

    def _settling_seconds(self, in_flight: int) -> float:
        """Return how many seconds the tasks in flight may take to end, with a margin."""
        return 2.0 + 3 * self._service_seconds * max(1.0, in_flight / self._slots)

    def _divide_limit(self, limit: int) -> list[int]:
        """Divide the in-flight limit among the queues in proportion to their ready tasks."""
        waiting = [max(0, count) for count in self._queue_lengths()]
        total = sum(waiting) or 1
        shares = [max(1 if count else 0, round(limit * count / total)) for count in waiting]
        while sum(shares) > limit and max(shares) > 1:
            shares[shares.index(max(shares))] -= 1
        return [share or 1 for share in shares]

    def _make_result(self, turns: Sequence[_Turn], half: int, step: int, seconds: float) -> Elasticity:
        """Return the elasticity between half and all slots, and that of the last step."""
        value, error, rate, part_rate = self._elasticity_between(turns, half)
        lost = self._lost_ends(turns, rate)
        result = Elasticity(
            value, error, self._slots, half, rate, part_rate, seconds, lost, _now_ms(self._store),
            self._service_seconds,
        )  # fmt: skip
        if step == half or not any(step in turn for turn in turns):
            return result
        value, error, _, step_rate = self._elasticity_between(turns, step)
        return replace(result, step=value, step_error=error, step_part=step, step_rate=step_rate)

    def _lost_ends(self, turns: Sequence[_Turn], rate: float) -> float:
        """Return the number of ends that the probe has cost so far.

        This is the larger of two estimates: by the windows with a part of the slots, waits between them
        included, and by all that ended since the start compared with the rate from before.
        """
        windows = [(limit, measured) for turn in turns for limit, measured in turn.items()]
        of_windows = sum(
            max(0.0, rate - measured.rate) * measured.seconds
            for limit, measured in windows
            if limit != self._slots
        )
        ends, at_ms = self._count_ended()
        since = (at_ms - self._first[1]) / 1000
        of_windows *= max(1.0, since / (sum(measured.seconds for _, measured in windows) or since or 1.0))
        return max(0.0, of_windows, self._free_rate * since - (ends - self._first[0]))

    def _elasticity_between(self, turns: Sequence[_Turn], fewer: int) -> tuple[float, float, float, float]:
        """Return the elasticity between `fewer` and all slots, its error, and their rates."""
        pairs = [(turn[self._slots], turn[fewer]) for turn in turns if fewer in turn]
        whole, some = _sum_windows(a for a, _ in pairs), _sum_windows(b for _, b in pairs)
        step = math.log(self._slots / fewer)
        if not whole.ends or not some.ends:
            return 0.0, math.inf, whole.rate, some.rate
        logs = [math.log(a.rate / b.rate) for a, b in pairs if a.ends and b.ends]
        counting = Z * math.sqrt(1 / whole.ends + 1 / some.ends)
        if len(logs) < 2:
            return math.log(whole.rate / some.rate) / step, 2 * counting / step, whole.rate, some.rate
        mean = sum(logs) / len(logs)
        spread = math.sqrt(sum((each - mean) ** 2 for each in logs) / (len(logs) - 1) / len(logs))
        # Runs of equal length end more evenly than by chance. The spread between the pairs counts then. It is
        # never taken for much less than chance, because few pairs may agree by chance as well.
        error = min(counting, _STUDENT.get(len(logs), Z) * spread)
        error = max(error, Z * spread, counting / 5)
        return math.log(whole.rate / some.rate) / step, error / step, whole.rate, some.rate

    def _count_in_flight(self) -> int:
        """Return the number of messages in flight on the pool's queues."""
        keys = [QueueKeys(queue, self._store.prefix) for queue in self._queues]
        with translate_errors("counting what is in flight"), self._store.client.pipeline(True) as pipe:
            for each in keys:
                pipe.zrange(each.consumers, 0, -1)
            consumers = pipe.execute()
            for each, names in zip(keys, consumers, strict=True):
                for name in names:
                    pipe.hlen(each.in_flight(name.decode()))
            return sum(pipe.execute())

    def _queue_lengths(self) -> list[int]:
        """Return the number of ready messages of each queue."""
        with translate_errors("counting what waits"), self._store.client.pipeline(False) as pipe:
            for queue in self._queues:
                for key in QueueKeys(queue, self._store.prefix).ready:
                    pipe.llen(key)
            lengths = pipe.execute()
        steps = len(lengths) // len(self._queues)
        return [sum(lengths[n * steps : (n + 1) * steps]) for n in range(len(self._queues))]

    def _count_ready(self) -> int:
        return sum(self._queue_lengths())

    def _count_ended(self) -> tuple[int, int]:
        """Return how many runs have ended so far, and the server's time in ms."""
        with translate_errors("counting what ended"), self._store.client.pipeline(True) as pipe:
            for queue in self._queues:
                pipe.hmget(QueueKeys(queue, self._store.prefix).counters, "settled", "dead", "retried")
            pipe.time()
            *counts, (seconds, micros) = pipe.execute()
        return sum(int(each or 0) for row in counts for each in row), seconds * 1000 + micros // 1000


def _window_seconds(service_seconds: float) -> float:
    """Return the length of a window: several service times, within bounds.

    It is a whole number of them: runs of equal length then end equally often in each window.
    """
    times = LONG_SERVICE_TIMES if service_seconds > LONG_RUN_SECONDS else SERVICE_TIMES
    times = max(1, min(times, int(MOST_SECONDS / max(service_seconds, 0.001))))
    return min(MOST_SECONDS, max(LEAST_SECONDS, times * service_seconds))


def longest_turn_seconds(service_seconds: float) -> float:
    """Return about the maximum time that the windows of a turn take, with the wait for each limit."""
    windows = 2 if service_seconds > LONG_RUN_SECONDS else 3
    return windows * (_window_seconds(service_seconds) + max(1.0, 3 * service_seconds) + 0.3)


def _sum_windows(windows: Iterable[_Window]) -> _Window:
    """Return the ends and the seconds of all windows together."""
    total = _Window()
    for each in windows:
        total.ends, total.seconds = total.ends + each.ends, total.seconds + each.seconds
    return total


def _limit_in_flight(store: Store, queue: str, max_count: int, until_ms: int) -> None:
    """Limit the in-flight tasks of a queue until a time. A time in the past ends the limit."""
    value: Any = f"{max_count}@{until_ms}" if until_ms else ""
    keys = (*QueueKeys(queue, store.prefix).all, queues_key(store.prefix))
    with translate_errors(f"probing queue {queue!r}"):
        script("set_limits").run(store.client, keys, (queue, "probe", value))


def _now_ms(store: Store) -> int:
    """Return the server's time, ms. Raises `BrokerAway`."""
    with translate_errors("reading the server's clock"):
        seconds, micros = store.client.time()
    return int(seconds) * 1000 + int(micros) // 1000
