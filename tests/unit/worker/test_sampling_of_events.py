"""Which tasks are chosen to be shown: all up to a rate, a sample of them beyond it."""

import random
from time import monotonic
from types import SimpleNamespace
from typing import Any

from millpond.worker.celery.request import PondRequest
from millpond.worker.report.event_sampling import BURST_SECONDS, Sample


class Clock:
    """A clock that is set by hand."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def chosen(
    sample: Sample, clock: Clock, *, per_second: float, seconds: float, jitter: float = 0
) -> list[bool]:
    """Offer tasks at a rate; `jitter` is by how many seconds each may come late."""
    start, seeded = clock.now, random.Random(7)
    late = sorted(n / per_second + seeded.uniform(0, jitter) for n in range(int(per_second * seconds)))
    found = []
    for at in late:
        clock.now = start + at
        found.append(sample.admits())
    return found


def test_at_the_rate_every_task_is_shown() -> None:
    """200 tasks a second for ten minutes, in gusts of five seconds, are all chosen."""
    clock = Clock()
    assert all(chosen(Sample(200, clock), clock, per_second=200, seconds=600, jitter=5))


def test_beyond_the_rate_a_sample_is_shown() -> None:
    """Of 5,000 a second, a burst is chosen, then 200 a second, spread over the time."""
    clock = Clock()
    sample = Sample(200, clock)
    found = chosen(sample, clock, per_second=5_000, seconds=10)
    assert all(found[: int(200 * BURST_SECONDS)])
    assert sum(found) == 200 * BURST_SECONDS + 200 * 10 - 1
    assert [sum(found[second * 5_000 :][:5_000]) for second in range(5, 10)] == [200] * 5
    clock.now += BURST_SECONDS
    assert all(chosen(sample, clock, per_second=2_000, seconds=1))


def test_without_a_rate_everything_is_shown() -> None:
    """0 is no bound."""
    clock = Clock()
    assert all(chosen(Sample(0, clock), clock, per_second=50_000, seconds=1))


def test_what_was_counted_is_told_once() -> None:
    """Each count is given away once, by the names that the reports have."""
    sample = Sample(1)
    sample.shown.append(None)
    sample.left_out.extend([None, None])
    assert (dict(sample.count()), +sample.count()) == ({"shown": 1, "left_out": 2}, {})


def test_a_task_is_said_to_start_once() -> None:
    """Taken back from a prefork child and given to another, it starts again for the pool, not for Flower."""
    told: list[str] = []
    request: Any = PondRequest.__new__(PondRequest)
    request.id, request.name, request._task = "one", "kind", SimpleNamespace(send_events=True)
    request._eventer = SimpleNamespace(enabled=True, send=lambda type, **_: told.append(type))
    for _ in range(2):
        request.on_accepted(1, monotonic())
        request.undo_start()
    request.send_event("task-succeeded")
    assert told == ["task-started", "task-succeeded"]
