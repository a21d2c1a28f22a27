"""The diagnosis of a pool: why it is slow, with figures and advice, from measurements of the last minute.

A pool is behind if its ready tasks would take it longer than a moment. The first of these that holds is the
reason:

    no worker    no worker serves a queue that has ready tasks
    paused       a queue that has ready tasks is paused
    limit        a rate or an in-flight limit is reached; more workers would change nothing
    batching     tasks are so short that fetching them costs more than running them
    processor    handlers compute, and the processors that they can use are busy
    dependency   handlers wait, and longer than within the last hour: a dependency is slow or saturated
    workers      handlers wait as long as before, and every slot is busy
    unclear      slots are free and yet tasks are ready

It cannot see CPU time in threads that a handler started. It takes a change in the mixture of kinds for a
change of the dependency.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from millpond.broker.stats.history import Sample, count_and_seconds
from millpond.monitor.snapshot import PoolView, QueueView, Snapshot

State = Literal[
    "idle",
    "keeps up",
    "no worker",
    "paused",
    "limit",
    "batching",
    "processor",
    "dependency",
    "workers",
    "unclear",
]

#: Ready tasks are a backlog if the pool needs longer than this to clear them.
MOMENT_SECONDS = 1.0

#: Fetching a task costs more than running it below this mean service time.
SHORT_SECONDS = 0.002

#: Shares from which all slots count as busy; a limit as reached; handlers as computing (of their time, or of
#: the processors of their hosts).
FULL = 0.7
REACHED = 0.85
COMPUTING = 0.6
#: A host is full from this share of busy processors. There, handlers count as computing from a smaller share.
FULL_HOST = 0.9
COMPUTING_ON_FULL_HOST = 0.2

#: A dependency is slow if tasks take so many times the best mean of the last hour, over so many tasks.
SLOWER = 2.0
ENOUGH = 20


@dataclass(frozen=True)
class Diagnosis:
    """The state of a pool, with the figures that show it and with advice."""

    pool: str
    state: State
    why: str
    advice: str = ""


def diagnose_all(snapshot: Snapshot, history: Sequence[Sequence[Sample]]) -> list[Diagnosis]:
    """Return the diagnosis of each pool; `history` has the samples of each, in the order of the snapshot."""
    pairs = zip(snapshot.pools, history, strict=True)
    return [diagnose(view, usual_seconds(samples)) for view, samples in pairs]


def diagnose(view: PoolView, usual: float | None = None) -> Diagnosis:
    """Return the diagnosis of one pool; `usual` is the usual mean service time, in seconds."""
    ready = [queue for queue in view.queues if queue.depth.ready]
    for queue in ready:
        if queue.limits.paused:
            return _paused(view, queue)
    if ready and not view.running:
        count = sum(queue.depth.ready for queue in ready)
        return Diagnosis(
            view.name, "no worker", f"{count:,} tasks are ready", f"start it: millpond worker {view.name}"
        )
    backlog = _backlog_seconds(view)
    if backlog is None:
        return Diagnosis(view.name, "idle", "no task is ready and none ran in the last minute")
    if backlog <= MOMENT_SECONDS:
        return Diagnosis(view.name, "keeps up", f"{_use(view)}; {_rate(view)}")
    return _why_behind(view, ready, usual)


def _why_behind(view: PoolView, ready: Sequence[QueueView], usual: float | None) -> Diagnosis:
    for queue in ready:
        if reached := _reached(queue):
            return Diagnosis(
                view.name,
                "limit",
                f"queue {queue.name} has reached its limit of {reached}; {_ready([queue])}",
                "raise the limit if the dependency that it protects can bear it; more workers change nothing",
            )
    mean, use = view.service.mean, view.utilisation or 0.0
    if mean is None:
        return Diagnosis(view.name, "unclear", f"{_ready(ready)} and none has ended yet; {_use(view)}")
    if mean < SHORT_SECONDS:
        return Diagnosis(
            view.name,
            "batching",
            f"a task takes {mean * 1000:.2f} ms and {_rate(view)}: fetching it costs more than running it",
            "put many items into one task",
        )
    if _computes(view):
        return _processor(view)
    if use < FULL:
        return Diagnosis(
            view.name,
            "unclear",
            f"{_ready(ready)} although {_use(view)}",
            f"run millpond health {view.name} on its hosts",
        )
    if usual is not None and mean >= SLOWER * usual:
        return Diagnosis(
            view.name,
            "dependency",
            f"a task takes {_time(mean)}, {mean / usual:.1f} times the usual {_time(usual)}, "
            f"and waits for most of it; {_use(view)}",
            "look at the dependency that the tasks wait for: more workers would slow it down further",
        )
    return Diagnosis(
        view.name,
        "workers",
        f"{_use(view)}, a task takes the usual {_time(mean)} and waits for most of it; {_ready(ready)}",
        "add slots, as long as tasks then take no longer: their dependency must bear it",
    )


def usual_seconds(history: Sequence[Sample]) -> float | None:
    """Return the best mean service time over any stretch of the last hour; None if too few tasks ended."""
    means, start = [], (0, 0.0)
    for n, sample in enumerate(history):
        count, seconds = count_and_seconds(sample.values["service"])
        ended = count - start[0]
        if ended >= ENOUGH and n:
            means.append((seconds - start[1]) / ended)
        if ended >= ENOUGH or ended < 0 or not n:
            start = count, seconds
    return min(means, default=None)


def _paused(view: PoolView, queue: QueueView) -> Diagnosis:
    why = f"queue {queue.name} is paused and has {queue.depth.ready:,} ready tasks"
    return Diagnosis(view.name, "paused", why, f"resume it: millpond queue resume {queue.name}")


def _backlog_seconds(view: PoolView) -> float | None:
    """Return the seconds to clear the ready tasks at the last minute's rate; None if the pool is idle."""
    count = sum(queue.depth.ready for queue in view.queues)
    if not count:
        return 0.0 if view.rate or view.busy else None
    return count / view.rate if view.rate else float("inf")


def _reached(queue: QueueView) -> str | None:
    limits = queue.limits
    if limits.rate and (queue.out_rate or 0.0) >= REACHED * limits.rate:
        return f"{limits.rate:g} tasks a second"
    if limits.in_flight and queue.depth.in_flight >= limits.in_flight:
        return f"{limits.in_flight} tasks at once"
    return None


def _computes(view: PoolView) -> bool:
    """True if processors limit the handlers: those of their hosts, or the one that all threads share."""
    cores = _cores(view)
    if cores is None or not view.service.seconds or view.cpu_seconds is None:
        return False
    if _fills_hosts(view, cores) or (_share_interpreters(view) and cores >= FULL * len(view.running)):
        return True
    return view.cpu_seconds / view.service.seconds >= COMPUTING


def _fills_hosts(view: PoolView, cores: float) -> bool:
    """True if handlers compute on hosts whose processors are busy, with whatever work."""
    cores_there = sum({report.host: report.cores for report in view.running}.values())
    if cores_there and cores >= COMPUTING * cores_there:
        return True
    full = bool(view.running) and all(report.host_busy >= FULL_HOST for report in view.running)
    return full and (view.cpu_seconds or 0.0) >= COMPUTING_ON_FULL_HOST * view.service.seconds


def _share_interpreters(view: PoolView) -> bool:
    return any(report.executor == "threads" for report in view.running)


def _processor(view: PoolView) -> Diagnosis:
    cores = _cores(view) or 0.0
    why = f"handlers keep {cores:.1f} processors busy in {len(view.running)} processes; {_use(view)}"
    if busy := max((report.host_busy for report in view.running), default=0.0):
        why += f"; the processors of their hosts are {busy:.0%} busy"
    if _share_interpreters(view) and not _fills_hosts(view, cores):
        return Diagnosis(view.name, "processor", why, 'threads share one processor: set executor = "prefork"')
    return Diagnosis(view.name, "processor", why, "add workers where processors are free, on another host")


def _cores(view: PoolView) -> float | None:
    if view.cpu_seconds is None or not view.window_seconds:
        return None
    return view.cpu_seconds / view.window_seconds


def _use(view: PoolView) -> str:
    if view.utilisation is None:
        return f"{view.busy} of {view.slots} slots are busy"
    return f"{view.utilisation:.0%} of {view.slots} slots are busy"


def _rate(view: PoolView) -> str:
    return f"{view.rate or 0.0:,.1f} tasks end a second"


def _ready(queues: Sequence[QueueView]) -> str:
    return f"{sum(queue.depth.ready for queue in queues):,} tasks are ready"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
