"""Say why a pool is slow, from what was measured of it in the last minute: a state, figures, what to do.

A pool is behind when what waits would take it longer than a moment. Then the first of these that holds is
why:

    no worker    nobody takes from a queue that holds something
    paused       somebody paused a queue that holds something
    limit        a rate or an in-flight limit is reached; more workers would change nothing
    batching     tasks are so short that handing them out costs more than running them
    processor    bodies compute, and the processors that they can use are busy
    dependency   bodies wait, and longer than they used to within the hour: what they wait for is slow or full
    workers      bodies wait as long as ever, and every slot is taken
    unclear      slots are free and yet tasks wait

What it does not know: processor time that threads of a body used, and a change in the mixture of kinds, which
it takes for a change in what they wait for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from millpond.broker.stats import history
from millpond.broker.stats.history import Sample
from millpond.monitor.snapshot import Overview, PoolView, QueueView

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

#: What waits is a backlog when it would take longer than this to clear.
MOMENT_SECONDS = 1.0

#: Tasks shorter than this on average are dearer to hand out than to run.
SHORT_SECONDS = 0.002

#: Shares: of slots, to count as all taken; of a limit, as reached; of a body's time, or of its hosts'
#: processors, as computing.
FULL = 0.7
REACHED = 0.85
COMPUTING = 0.6
#: A host whose processors are busy to this share is full; there, a body that is on one for so much computes.
CROWDED = 0.9
COMPUTING_IN_A_CROWD = 0.2

#: A dependency is slow when tasks take this many times what they took at the best in the last hour, over as
#: many of them.
SLOWER = 2.0
ENOUGH = 20


@dataclass(frozen=True)
class Verdict:
    """Say how a pool stands: `why` in figures, `advice` in a sentence."""

    pool: str
    state: State
    why: str
    advice: str = ""


def verdicts(overview: Overview, past: Sequence[Sequence[Sample]]) -> list[Verdict]:
    """Return the verdict on each pool; `past` are the samples of each, in the order of the overview."""
    return [judge(view, usual_seconds(found)) for view, found in zip(overview.pools, past, strict=True)]


def judge(view: PoolView, usual: float | None = None) -> Verdict:
    """Return the verdict on one pool; `usual` is what its tasks take when all is well, seconds."""
    waiting = [queue for queue in view.queues if queue.depth.ready]
    for queue in waiting:
        if queue.limits.paused:
            return _paused(view, queue)
    if waiting and not view.running:
        count = sum(queue.depth.ready for queue in waiting)
        return Verdict(
            view.name, "no worker", f"{count} tasks wait", f"start it: millpond worker {view.name}"
        )
    backlog = _backlog_seconds(view)
    if backlog is None:
        return Verdict(view.name, "idle", "nothing waits and nothing ran in the last minute")
    if backlog <= MOMENT_SECONDS:
        return Verdict(view.name, "keeps up", f"{_use(view)}; {_rate(view)}")
    return _why_behind(view, waiting, usual)


def _why_behind(view: PoolView, waiting: Sequence[QueueView], usual: float | None) -> Verdict:
    for queue in waiting:
        if reached := _reached(queue):
            return Verdict(
                view.name,
                "limit",
                f"queue {queue.name} is held to {reached}, which is reached; {queue.depth.ready} wait",
                "raise the limit if what it protects can bear more; more workers change nothing",
            )
    mean, use = view.service.mean, view.utilisation or 0.0
    if mean is None:
        return Verdict(view.name, "unclear", f"{_waiting(waiting)} and nothing ended yet; {_use(view)}")
    if mean < SHORT_SECONDS:
        return Verdict(
            view.name,
            "batching",
            f"a task takes {mean * 1000:.2f} ms and {_rate(view)}: handing it out costs more than running it",
            "put many items into one task",
        )
    if _computes(view):
        return _processor(view)
    if use < FULL:
        return Verdict(
            view.name,
            "unclear",
            f"{_waiting(waiting)} although {_use(view)}",
            f"look at millpond health {view.name} on its hosts",
        )
    if usual is not None and mean >= SLOWER * usual:
        return Verdict(
            view.name,
            "dependency",
            f"a task takes {_time(mean)}, {mean / usual:.1f} times the {_time(usual)} of before, "
            f"and waits for most of it; {_use(view)}",
            "look at what the tasks wait for: more workers would make it wait longer",
        )
    return Verdict(
        view.name,
        "workers",
        f"{_use(view)}, a task takes {_time(mean)} as ever and waits for most of it; {_waiting(waiting)}",
        "add slots, as long as a task then takes no longer: what the tasks wait for must bear it",
    )


def usual_seconds(past: Sequence[Sample]) -> float | None:
    """Return the mean time of a task in the best stretch of the last hour; None where too few were seen."""
    means, start = [], (0, 0.0)
    for n, sample in enumerate(past):
        count, seconds = history.count_and_seconds(sample.values["service"])
        ended = count - start[0]
        if ended >= ENOUGH and n:
            means.append((seconds - start[1]) / ended)
        if ended >= ENOUGH or ended < 0 or not n:
            start = count, seconds
    return min(means, default=None)


def _paused(view: PoolView, queue: QueueView) -> Verdict:
    why = f"queue {queue.name} is paused and holds {queue.depth.ready} tasks"
    return Verdict(view.name, "paused", why, f"let it go on: millpond queue resume {queue.name}")


def _backlog_seconds(view: PoolView) -> float | None:
    """Return how long what waits would take, at the last minute's rate; None: nothing waits or ran."""
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
    """Say whether processors hold bodies up: those that they use, or the one that all threads share."""
    cores = _cores(view)
    if cores is None or not view.service.seconds or view.cpu_seconds is None:
        return False
    if _fills_hosts(view, cores) or (_share_interpreters(view) and cores >= FULL * len(view.running)):
        return True
    return view.cpu_seconds / view.service.seconds >= COMPUTING


def _fills_hosts(view: PoolView, cores: float) -> bool:
    """Say whether bodies that compute find the processors of their hosts taken, by whomever."""
    there = sum({report.host: report.cores for report in view.running}.values())
    if there and cores >= COMPUTING * there:
        return True
    crowded = bool(view.running) and all(report.host_busy >= CROWDED for report in view.running)
    return crowded and (view.cpu_seconds or 0.0) >= COMPUTING_IN_A_CROWD * view.service.seconds


def _share_interpreters(view: PoolView) -> bool:
    return any(report.executor == "threads" for report in view.running)


def _processor(view: PoolView) -> Verdict:
    cores = _cores(view) or 0.0
    why = f"bodies keep {cores:.1f} processors busy in {len(view.running)} processes; {_use(view)}"
    if busy := max((report.host_busy for report in view.running), default=0.0):
        why += f"; their hosts' processors are {busy:.0%} busy"
    if _share_interpreters(view) and not _fills_hosts(view, cores):
        return Verdict(view.name, "processor", why, 'threads share one processor: executor = "prefork"')
    return Verdict(view.name, "processor", why, "add workers on processors that are free, on another host")


def _cores(view: PoolView) -> float | None:
    if view.cpu_seconds is None or not view.window_seconds:
        return None
    return view.cpu_seconds / view.window_seconds


def _use(view: PoolView) -> str:
    if view.utilisation is None:
        return f"{view.busy} of {view.slots} slots are taken"
    return f"{view.utilisation:.0%} of {view.slots} slots are taken"


def _rate(view: PoolView) -> str:
    return f"{view.rate or 0.0:,.1f} tasks a second end"


def _waiting(queues: Sequence[QueueView]) -> str:
    return f"{sum(queue.depth.ready for queue in queues):,} wait"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
