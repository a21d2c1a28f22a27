"""Decide which pool is probed: one with a backlog that nothing else explains, if the probe costs little.

The process that writes the samples tries this once in ten seconds. One process at a time probes a pool. The
cost of probes is counted in seconds of the pool's throughput, and kept under a share of each hour.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from millpond.broker import limits, server
from millpond.broker.connection import Store, translate_errors
from millpond.broker.control import drain
from millpond.broker.errors import BrokerError
from millpond.broker.inspect import depth
from millpond.broker.inspect.depth import Depth
from millpond.broker.keys import probe_cost_key, probe_lock_key
from millpond.broker.stats import elasticity, heartbeats, processors, window
from millpond.broker.stats.elasticity import FRESH_MS, Elasticity
from millpond.broker.stats.histogram import Histogram
from millpond.broker.stats.probe import Probe, longest_turn_seconds
from millpond.broker.stats.window import Window

logger = logging.getLogger(__name__)

#: A pool is probed if at least ENDS runs ended in at least SECONDS, the share FULL of its slots is in use,
#: runs take at least SHORT_SECONDS on average, and a smaller share than FAILING fails.
ENDS, SECONDS, FULL, SHORT_SECONDS, FAILING = 30, 10.0, 0.5, 0.002, 0.5
#: The ready tasks must last for this many seconds at the present rate, or a probe would empty the queue.
BACKLOG_SECONDS = 5.0
#: From this share of a rate limit on, the limit explains the backlog.
NEAR_LIMIT = 0.8
#: If slots spend this share of their time on computing or on a lock, that explains the backlog.
EXPLAINED = 0.6
#: The longest probe, if runs are not long, and the shortest useful one, seconds; and for how many ms the lock
#: of a probe outlasts the longest probe.
MOST_SECONDS, LEAST_SECONDS, LOCK_MS = 30.0, 8.0, 90_000
#: The maximum share of a pool's throughput that a probe costs while it lasts: no more than half of the slots
#: idle.
COST = 0.5
HOUR = 3600


@dataclass(frozen=True)
class Candidate:
    """A pool that may be probed: its slots, its queues with ready tasks, its window of the last minute."""

    pool: str
    slots: int
    queues: tuple[str, ...]
    minute: Window


@dataclass(frozen=True)
class NoCandidate:
    """The reason why a pool is not probed: a probe would show nothing, or is not needed."""

    reason: str


def find_candidate(store: Store, pool: str) -> Candidate | NoCandidate:
    """Return the pool if only slots or dependencies can explain its backlog, else why it is not probed."""
    running = heartbeats.read_processes(store, pool)
    slots = sum(process.slots for process in running)
    served = sorted({queue for process in running for queue in process.queues})
    waiting = _without_paused(store, [each for each in depth.read_depths(store, served) if each.ready])
    if reason := _no_spare_slot_reason(store, pool, slots, waiting):
        return NoCandidate(reason)
    [minute] = window.read_windows(store, [pool], now_ms=server.server_time_ms(store), seconds=60)
    rate = minute.ended / minute.seconds if minute.seconds else 0.0
    queues = tuple(each.queue for each in waiting)
    for queue, limit in zip(queues, limits.read_limits_of_all(store, queues), strict=True):
        if limit.in_flight and limit.in_flight <= slots:
            return NoCandidate(f"queue {queue} is limited to no more tasks at once than slots")
        if limit.rate and rate >= NEAR_LIMIT * limit.rate:
            return NoCandidate(f"queue {queue} has nearly reached its rate limit")
    if sum(each.ready for each in waiting) < max(2 * slots, BACKLOG_SECONDS * rate):
        return NoCandidate(f"its ready tasks last for less than {BACKLOG_SECONDS:g} s")
    if reason := _known_cause(minute, running):
        return NoCandidate(reason)
    return Candidate(pool, slots, queues, minute)


def _without_paused(store: Store, depths: Sequence[Depth]) -> list[Depth]:
    """Return the depths of the queues that are not paused: slots run no tasks of a paused queue."""
    limits_of_all = limits.read_limits_of_all(store, [each.queue for each in depths])
    return [each for each, limit in zip(depths, limits_of_all, strict=True) if not limit.paused]


def _no_spare_slot_reason(store: Store, pool: str, slots: int, waiting: Sequence[Depth]) -> str:
    """Return why leaving a slot of the pool idle would show nothing, or "" if it would show something."""
    if not slots:
        return "no process of it runs"
    if slots < 2:
        return "it has one slot: add --second-slot, where two of its tasks may run at once"
    if pool in drain.read_drained_pools(store):
        return "it is drained"
    return "" if waiting else "no task is ready"


def _known_cause(minute: Window, running: Sequence[heartbeats.Heartbeat]) -> str:
    """Return the cause of a pool's backlog, or why too little is known of the pool, or "" for neither."""
    if minute.ended < ENDS or minute.seconds < SECONDS:
        return f"only {minute.ended} tasks ended in the last minute, {ENDS} are needed"
    if (minute.use or 0.0) < FULL:
        return f"only {minute.use or 0.0:.0%} of its slots are in use"
    bad = sum(figures.failed + figures.retried for figures in minute.kinds.values())
    if bad >= FAILING * minute.ended:
        return "most runs fail or are retried"
    if minute.service_seconds < SHORT_SECONDS * minute.ended:
        return "its tasks are too short"
    room = processors.processors_are_free(minute, running)
    causes = ("runnable", "interpreter", "lock") if room else ("processor", "runnable", "interpreter", "lock")
    return "its slots compute, or wait for a lock" if minute.share(*causes) >= EXPLAINED else ""


def longest_probe_seconds(candidate: Candidate) -> float:
    """Return how long a probe of a pool may last, seconds: three turns, which are longer if runs are."""
    return max(MOST_SECONDS, 3 * longest_turn_seconds(_mean_seconds(candidate)))


def _mean_seconds(candidate: Candidate) -> float:
    """Return the mean service time in the candidate's last minute, seconds."""
    return candidate.minute.service_seconds / max(1, candidate.minute.ended)


def probe_pool(store: Store, candidate: Candidate, *, max_seconds: float | None = None) -> Elasticity | None:
    """Probe a pool for `max_seconds` (None: `longest_probe_seconds`), store the result and return it.

    Return None if another process probes it, if its ready tasks ran out or if its number of slots changed.
    """
    lock, longest = probe_lock_key(candidate.pool, store.prefix), longest_probe_seconds(candidate)
    with translate_errors("taking the lock of a probe"):
        if not store.client.set(lock, "1", nx=True, px=LOCK_MS + int(1000 * longest)):
            return None
    try:
        recent, mean = _last_figures(store, candidate)
        before = _totals_by_kind(store, candidate.pool)
        free_rate = recent.ended / recent.seconds if recent.seconds else 0.0
        probe = Probe(
            store,
            candidate.queues,
            slots=candidate.slots,
            service_seconds=mean,
            free_rate=free_rate,
            is_unchanged=lambda: heartbeats.count_slots(store, candidate.pool) == candidate.slots,
        )
        try:
            measured = probe.run(max_seconds=max_seconds or longest)
        finally:
            _record_cost(store, candidate.pool, probe.cost_seconds)
        if measured is not None:
            # Read again, so that the mean is that of the runs that were measured.
            _, mean = _last_figures(store, candidate)
            measured = replace(measured, free_rate=free_rate, service_seconds=mean)
            after = _totals_by_kind(store, candidate.pool)
            earlier = recent if recent.ended >= ENDS else candidate.minute
            measured = measured.with_slowdown(compute_slowdown(earlier, before, after))
            measured = _join_with_last(store, candidate.pool, measured)
            elasticity.store_elasticity(store, candidate.pool, measured)
        return measured
    finally:
        with translate_errors("releasing the lock of a probe"):
            store.client.delete(lock)


def _last_figures(store: Store, candidate: Candidate) -> tuple[Window, float]:
    """Return the pool's window of the last ten seconds, and the mean service time of its runs.

    If few runs ended in it, the time is that of the candidate's last minute.
    """
    [recent] = window.read_windows(store, [candidate.pool], now_ms=server.server_time_ms(store), seconds=10)
    figures = recent if recent.ended >= ENDS else candidate.minute
    return recent, figures.service_seconds / max(1, figures.ended)


def compute_slowdown(
    earlier: Window, before: Mapping[str, Histogram], after: Mapping[str, Histogram]
) -> float:
    """Return how many times as long runs of the same kinds took in an earlier window as in a probe.

    `before` and `after` are the histograms of service times by kind at the ends of the probe. Return 1 if
    less than half of the runs in the probe are of kinds of that window.
    """
    in_probe = {kind: after[kind] - before.get(kind, Histogram()) for kind in after}
    compared = {
        kind: histogram
        for kind, histogram in in_probe.items()
        if histogram.count and kind in earlier.kinds and earlier.kinds[kind].mean_service_seconds
    }
    seconds = sum(histogram.seconds for histogram in compared.values())
    count = sum(histogram.count for histogram in compared.values())
    if not seconds or count < sum(histogram.count for histogram in in_probe.values()) / 2:
        return 1.0
    return (
        sum((earlier.kinds[kind].mean_service_seconds or 0.0) * each.count for kind, each in compared.items())
        / seconds
    )


def _totals_by_kind(store: Store, pool: str) -> Mapping[str, Histogram]:
    """Return the histograms of the service times of a pool since it was first used, by kind."""
    [totals] = heartbeats.read_totals(store, [pool])
    return totals.service


def _join_with_last(store: Store, pool: str, measured: Elasticity) -> Elasticity:
    """Return the mean of a result and the pool's last one, if neither decides and they are comparable.

    That is, they are of the same slots and of runs of similar length. Otherwise return the result itself.
    """
    [(last, _)] = elasticity.read_elasticities(store, [pool])
    if last is None or measured.decides or last.decides:
        return measured
    alike = (last.slots, last.part) == (measured.slots, measured.part) and last.error < math.inf
    alike = alike and elasticity.still_holds(last, measured.service_seconds)
    return measured.with_earlier(last) if alike and measured.at_ms - last.at_ms <= FRESH_MS else measured


def read_probe_states(store: Store, pools: Sequence[str]) -> list[tuple[bool, float]]:
    """Return for each pool whether it is probed now, and the cost of its probes within an hour, seconds."""
    if not pools:
        return []
    locks = [probe_lock_key(pool, store.prefix) for pool in pools]
    costs = [probe_cost_key(pool, store.prefix) for pool in pools]
    with translate_errors("reading which pools are probed"):
        replies = store.client.mget([*locks, *costs])
    pairs = zip(replies[: len(pools)], replies[len(pools) :], strict=True)
    return [(lock is not None, float(cost or 0)) for lock, cost in pairs]


def probe_where_due(store: Store, *, share: float) -> None:
    """Probe the first pool that has a backlog without a known cause, if one has. Errors are logged.

    `share` is the maximum cost of a pool's probes, as a share of its throughput in each hour.
    """
    for pool in heartbeats.read_pools(store) if share > 0 else ():
        try:
            candidate = find_candidate(store, pool)
            if isinstance(candidate, NoCandidate) or _has_valid_result(store, candidate):
                continue
            if (seconds := _affordable_seconds(candidate, share * HOUR - _read_cost(store, pool))) is None:
                continue
            measured = probe_pool(store, candidate, max_seconds=seconds)
        except BrokerError as error:
            logger.debug("%s", error)
            return
        if measured is not None:
            logger.info("pool %s: elasticity %.2f ± %.2f", pool, measured.value, measured.error)
            return


def _affordable_seconds(candidate: Candidate, left: float) -> float | None:
    """Return how long a probe may last, seconds, if the cost of it may be `left` seconds of throughput.

    Return None if even the shortest probe would cost more.
    """
    # A turn is not interrupted, however long the runs are.
    least = max(LEAST_SECONDS, longest_turn_seconds(_mean_seconds(candidate)))
    return min(longest_probe_seconds(candidate), left / COST) if COST * least <= left else None


def _has_valid_result(store: Store, candidate: Candidate) -> bool:
    """True if the pool's last result decides and still holds: same slots, runs of similar length."""
    [(kept, _)] = elasticity.read_elasticities(store, [candidate.pool])
    if kept is None or kept.slots != candidate.slots:
        return False
    _, mean = _last_figures(store, candidate)
    return elasticity.still_holds(kept, mean) and kept.decides


def _record_cost(store: Store, pool: str, seconds: float) -> None:
    """Record the cost of a probe, in seconds of the pool's throughput."""
    key = probe_cost_key(pool, store.prefix)
    with store.pipeline("counting the cost of a probe") as pipe:
        pipe.set(key, 0, ex=HOUR, nx=True).incrbyfloat(key, seconds)
        pipe.execute()


def _read_cost(store: Store, pool: str) -> float:
    """Return the cost of a pool's probes in this hour, in seconds of its throughput."""
    with translate_errors("reading the cost of probes"):
        return float(store.client.get(probe_cost_key(pool, store.prefix)) or 0)
