"""Measure whether a pool's throughput grows with its slots: e = d ln X / d ln N, with slots idle in turns.

Windows alternate, at random, between all slots and a part of them. The rates compared are the server's own
count of ends, under an in-flight limit in both sorts of window, so that the missing prefetch costs both the
same. e is 1 where slots lack, and 0 where all of them wait for one thing: a full dependency, a lock, a
processor. (Gunther, "Guerrilla Capacity Planning", on the universal scalability law; Netflix's and Envoy's
adaptive concurrency limits throttle for the same reason.) A prober that is killed leaves nothing behind: the
limit ends at its time.
"""

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import QueueKeys, elasticity_key, queues_key
from millpond.broker.scripts import script

#: The shares of the slots that are compared with all of them, the clearer one first.
SHARES = (0.5, 0.75)

#: The shortest window, its length in mean service times, and the longest window; seconds.
LEAST_SECONDS, SERVICE_TIMES, MOST_SECONDS = 1.5, 4.0, 12.0

#: The interval is of 90 %; a decision needs it above or below these.
Z = 1.645
GROWS, SATURATED = 0.7, 0.5

#: How long a result is kept, ms.
KEPT_MS = 15 * 60 * 1000


@dataclass(frozen=True)
class Elasticity:
    """The measured elasticity of a pool: `value` ± `error` (90 %), between `part` and `slots` tasks at once.

    `rate` and `part_rate` are ends a second; `seconds` is how long it took, `lost` how many ends it cost.
    """

    value: float
    error: float
    slots: int
    part: int
    rate: float
    part_rate: float
    seconds: float
    lost: float
    at_ms: int
    #: The mean service time of the pool's runs when it was measured, seconds.
    service_seconds: float = 0.0

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.value - self.error

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.value + self.error

    @property
    def decides(self) -> bool:
        """True if the interval is on one side: throughput grows with slots, or it does not."""
        return self.low >= GROWS or self.high <= SATURATED


@dataclass
class _Window:
    """The ends counted under one limit."""

    ends: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.ends / self.seconds if self.seconds else 0.0


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
    ) -> None:
        self._store = store
        self._queues = tuple(queues)
        self._slots = slots
        self._service_seconds = service_seconds
        self._window_seconds = min(MOST_SECONDS, max(LEAST_SECONDS, SERVICE_TIMES * service_seconds))
        self._settling_seconds = max(1.0, 3 * service_seconds)
        self._chance = chance or random.Random()
        self._sleep = sleep

    def run(self, *, most_seconds: float = 60.0) -> Elasticity | None:
        """Return the elasticity after at most about `most_seconds`; None if too few tasks are ready."""
        begun = time.monotonic()
        found: Elasticity | None = None
        try:
            for share in SHARES:
                part = max(1, round(self._slots * share))
                if part == self._slots:
                    continue
                left = most_seconds - (time.monotonic() - begun)
                if found is not None and left < 4 * self._window_seconds:
                    break
                tried = self._compare(part, begun, begun + most_seconds * (1.0 if found else 0.7))
                if tried is None:
                    break
                found = tried if found is None or tried.decides else found
                if found.decides:
                    break
        finally:
            for queue in self._queues:
                _hold(self._store, queue, 0, 0)
        return found

    def _compare(self, part: int, begun: float, deadline: float) -> Elasticity | None:
        whole, some = _Window(), _Window()
        rates: list[tuple[float, float]] = []
        measured: Elasticity | None = None
        while True:
            pair = {self._slots: _Window(), part: _Window()}
            for limit in self._chance.sample(sorted(pair), 2):
                seen = self._window(limit)
                if seen is None:
                    return measured
                pair[limit] = seen
            for total, seen in ((whole, pair[self._slots]), (some, pair[part])):
                total.ends, total.seconds = total.ends + seen.ends, total.seconds + seen.seconds
            rates.append((pair[self._slots].rate, pair[part].rate))
            measured = self._result(whole, some, rates, part, time.monotonic() - begun)
            enough = len(rates) >= 2 and measured.decides
            if enough or time.monotonic() + 2 * self._window_seconds > deadline:
                return measured

    def _window(self, limit: int) -> _Window | None:
        """Count the ends under an in-flight limit; None if the queues ran empty."""
        until_ms = int((self._window_seconds + 3 * self._settling_seconds) * 1000) + 2_000
        now_ms = _now_ms(self._store)
        for queue, most in zip(self._queues, self._shares(limit), strict=True):
            _hold(self._store, queue, most, now_ms + until_ms)
        deadline = time.monotonic() + self._settling_seconds
        while time.monotonic() < deadline and self._in_flight() > limit:
            self._sleep(0.02)
        self._sleep(min(0.3, self._window_seconds / 5))  # until those that are let in run as well
        first, began = self._ended()
        self._sleep(self._window_seconds)
        last, ended = self._ended()
        if not self._waiting():
            return None
        return _Window(last - first, (ended - began) / 1000)

    def _shares(self, limit: int) -> list[int]:
        """Divide the in-flight limit among the queues in proportion to their ready tasks."""
        waiting = [max(0, count) for count in self._lengths()]
        total = sum(waiting) or 1
        shares = [max(1 if count else 0, round(limit * count / total)) for count in waiting]
        while sum(shares) > limit and max(shares) > 1:
            shares[shares.index(max(shares))] -= 1
        return [share or 1 for share in shares]

    def _result(
        self, whole: _Window, some: _Window, rates: list[tuple[float, float]], part: int, seconds: float
    ) -> Elasticity:
        step = math.log(self._slots / part)
        if not whole.ends or not some.ends:
            return Elasticity(0.0, math.inf, self._slots, part, whole.rate, some.rate, seconds, 0.0, 0)
        value = math.log(whole.rate / some.rate) / step
        counting = math.sqrt(1 / whole.ends + 1 / some.ends)
        logs = [math.log(a / b) for a, b in rates if a and b]
        mean = sum(logs) / len(logs) if logs else 0.0
        spread = math.sqrt(
            sum((each - mean) ** 2 for each in logs) / max(1, len(logs) - 1) / max(1, len(logs))
        )
        # Runs that take alike end more evenly than chance alone would have them: with several pairs, the
        # spread between these counts for more.
        least = counting if len(logs) < 3 else 0.5 * counting
        error = Z * max(min(least, 0.5), spread) / step
        lost = max(0.0, whole.rate - some.rate) * some.seconds
        at_ms = _now_ms(self._store)
        return Elasticity(
            value,
            error,
            self._slots,
            part,
            whole.rate,
            some.rate,
            seconds,
            lost,
            at_ms,
            self._service_seconds,
        )

    def _in_flight(self) -> int:
        keys = [QueueKeys(queue, self._store.prefix) for queue in self._queues]
        with translate_errors("counting what is in flight"), self._store.client.pipeline(False) as pipe:
            for each in keys:
                pipe.zrange(each.consumers, 0, -1)
            consumers = pipe.execute()
            for each, names in zip(keys, consumers, strict=True):
                for name in names:
                    pipe.hlen(each.in_flight(name.decode()))
            return sum(pipe.execute())

    def _lengths(self) -> list[int]:
        with translate_errors("counting what waits"), self._store.client.pipeline(False) as pipe:
            for queue in self._queues:
                for key in QueueKeys(queue, self._store.prefix).ready:
                    pipe.llen(key)
            found = pipe.execute()
        steps = len(found) // len(self._queues)
        return [sum(found[n * steps : (n + 1) * steps]) for n in range(len(self._queues))]

    def _waiting(self) -> int:
        return sum(self._lengths())

    def _ended(self) -> tuple[int, int]:
        """Return how many runs have ended so far, and the server's time in ms."""
        with translate_errors("counting what ended"), self._store.client.pipeline(True) as pipe:
            for queue in self._queues:
                pipe.hmget(QueueKeys(queue, self._store.prefix).counters, "settled", "dead", "retried")
            pipe.time()
            *counts, (seconds, micros) = pipe.execute()
        return sum(int(each or 0) for row in counts for each in row), seconds * 1000 + micros // 1000


#: The mean service time may move by this factor before a result is no longer believed.
SHIFTED = 1.6


def holds(found: Elasticity, service_seconds: float) -> bool:
    """True if a result still holds for runs that take so long on average."""
    if not found.service_seconds or not service_seconds:
        return True
    return 1 / SHIFTED < service_seconds / found.service_seconds < SHIFTED


def keep(store: Store, pool: str, found: Elasticity) -> None:
    """Store a result, for the diagnosis of the pool."""
    with translate_errors("keeping what was measured"):
        store.client.set(elasticity_key(pool, store.prefix), json.dumps(asdict(found)), px=KEPT_MS)


def kept(store: Store, pools: Sequence[str]) -> list[Elasticity | None]:
    """Return the last result of each pool, or None."""
    if not pools:
        return []
    with translate_errors("reading what was measured"):
        found = store.client.mget([elasticity_key(pool, store.prefix) for pool in pools])
    return [None if raw is None else _parsed(raw) for raw in found]


def _parsed(raw: bytes) -> Elasticity | None:
    try:
        return Elasticity(**json.loads(raw))
    except (ValueError, TypeError):
        return None


def _hold(store: Store, queue: str, most: int, until_ms: int) -> None:
    """Limit the in-flight tasks of a queue until a time; a time in the past ends the limit."""
    value: Any = f"{most}@{until_ms}" if until_ms else ""
    keys = (*QueueKeys(queue, store.prefix).all, queues_key(store.prefix))
    with translate_errors(f"probing queue {queue!r}"):
        script("set_limits").run(store.client, keys, (queue, "probe", value))


def _now_ms(store: Store) -> int:
    with translate_errors("reading the server's clock"):
        seconds, micros = store.client.time()
    return int(seconds) * 1000 + int(micros) // 1000
