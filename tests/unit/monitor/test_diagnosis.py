"""The diagnosis of a pool, from figures made up for each state."""

from dataclasses import replace

import pytest

from millpond.broker.inspect.depth import Depth
from millpond.broker.limits import Limits
from millpond.broker.stats.heartbeats import Heartbeat
from millpond.broker.stats.histogram import BOUNDS, NAMES, Histogram, bucket
from millpond.broker.stats.history import Sample
from millpond.monitor.diagnosis import diagnose, usual_seconds
from millpond.monitor.formatting import sentence
from millpond.monitor.snapshot import PoolView, QueueView


def took(seconds: float, count: int = 1_000) -> Histogram:
    """Return a histogram of tasks that all took as long."""
    counts = [0] * len(NAMES)
    counts[bucket(seconds)] = count
    return Histogram(tuple(counts), seconds * count)


def queue(ready: int = 0, fetched: int = 0, *, out_rate: float = 0.0, **limits: object) -> QueueView:
    depth = Depth("q", ready, 0, fetched, 0, 1, None, {})
    return QueueView(depth, Limits(**limits), ("p",), out_rate=out_rate)  # type: ignore[arg-type]


def report(executor: str = "threads") -> Heartbeat:
    return Heartbeat("p.1@h", "p", "h", 1, executor, 4, 4, 4, 0, False, 60.0, ("q",))


BUSY = PoolView(
    name="p",
    pool=None,
    queues=(queue(ready=1_000),),
    running=(report(),),
    rate=10.0,
    utilisation=1.0,
    window_seconds=60.0,
    cpu_seconds=3.0,
    service=took(0.4, 600),
)


@pytest.mark.parametrize(
    ("view", "usual", "state"),
    [
        (replace(BUSY, queues=(queue(),), rate=None, running=(replace(report(), busy=0),)), None, "idle"),
        (replace(BUSY, queues=(queue(ready=5),)), None, "keeps up"),
        (replace(BUSY, running=()), None, "no worker"),
        (replace(BUSY, queues=(queue(ready=1, paused=True),)), None, "paused"),
        (replace(BUSY, queues=(queue(ready=1_000, out_rate=9.5, rate=10.0),)), None, "limit"),
        (replace(BUSY, queues=(queue(ready=1_000, fetched=3, in_flight=3),)), None, "limit"),
        (replace(BUSY, rate=100.0, service=took(0.0005), utilisation=0.1), None, "batching"),
        (replace(BUSY, cpu_seconds=58.0), None, "processor"),
        (replace(BUSY, cpu_seconds=200.0, running=(report("prefork"),)), None, "processor"),
        (BUSY, 0.1, "dependency"),
        (BUSY, 0.35, "workers"),
        (BUSY, None, "workers"),
        (replace(BUSY, utilisation=0.2), 0.4, "unclear"),
        (replace(BUSY, rate=0.0, service=Histogram()), None, "unclear"),
    ],
)
def test_each_state_is_told_from_the_others(view: PoolView, usual: float | None, state: str) -> None:
    """Figures that have one reason get that one, with figures and, but for the good ones, with advice."""
    verdict = diagnose(view, usual)
    assert verdict.state == state, verdict
    assert verdict.why
    assert bool(verdict.advice) == (state not in ("idle", "keeps up")) or state == "unclear"


def test_threads_that_compute_are_not_taken_for_waiting() -> None:
    """Four threads share an interpreter, each on it a quarter of its time: the processor is the reason."""
    view = replace(BUSY, cpu_seconds=55.0, service=took(0.4, 550))
    assert view.cpu_seconds is not None
    assert view.cpu_seconds / view.service.seconds < 0.3
    assert diagnose(view, 0.1).state == "processor"


def test_more_slots_than_processors_are_not_taken_for_waiting() -> None:
    """Eight children on two processors are each on one a quarter of their time: the processors are full."""
    crowded = replace(BUSY, cpu_seconds=110.0, service=took(0.4, 1_200), running=(report("prefork"),))
    assert diagnose(crowded, 0.35).state == "workers"
    told = diagnose(replace(crowded, running=(replace(report("prefork"), cores=2),)), 0.35)
    assert (told.state, "another host" in told.advice) == ("processor", True)
    shared = replace(crowded, running=(replace(report("prefork"), cores=8, host_busy=0.97),))
    assert diagnose(shared, 0.35).state == "processor"
    waiting = replace(shared, cpu_seconds=30.0)
    assert diagnose(waiting, 0.35).state == "workers"
    roomy = replace(crowded, running=(replace(report("prefork"), cores=8),))
    assert diagnose(roomy, 0.35).state == "workers"


def test_what_is_usual_is_the_best_of_the_last_hour() -> None:
    """A stretch with too few tasks does not count; the fastest other one does."""

    def sample(at_ms: int, *seen: Histogram) -> Sample:
        both = sum(seen, Histogram())
        packed = dict(zip(NAMES, both.counts, strict=True)) | {"seconds": both.seconds}
        return Sample(at_ms, {"service": packed})

    fast, slow, few = took(0.1, 100), took(0.5, 100), took(0.001, 3)
    past = [sample(0), sample(1, slow), sample(2, slow, fast), sample(3, slow, fast, few)]
    assert usual_seconds(past) == pytest.approx(0.1)
    assert usual_seconds(past[:1]) is None
    assert BOUNDS


def test_a_past_whose_totals_began_anew_is_still_judged() -> None:
    """After the server lost the totals, what is usual is what was measured since, and before."""

    def sample(at_ms: int, count: int, seconds: float) -> Sample:
        return Sample(at_ms, {"service": {"1": count, "seconds": seconds}})

    before = [sample(1, 1_000, 900.0), sample(2, 1_100, 1_000.0)]
    since = [sample(3, 0, 0.0), sample(4, 50, 10.0)]
    assert usual_seconds([*before, *since]) == pytest.approx(0.2)
    assert usual_seconds(before) == pytest.approx(1.0)


def test_a_queue_keeps_its_name_at_the_head_of_a_sentence() -> None:
    """A page writes verdicts as sentences; what somebody would type is not written large."""
    view = replace(BUSY, queues=(queue(ready=3, paused=True),))
    assert sentence(diagnose(view).why).startswith(f"Queue {view.queues[0].name} is paused")
