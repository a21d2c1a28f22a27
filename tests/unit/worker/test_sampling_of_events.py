"""The sample of tasks whose events are sent: all up to a rate, some of them beyond it."""

import random
from time import monotonic
from types import SimpleNamespace
from typing import Any

from millpond.broker.delivery import Delivery
from millpond.broker.message import Message
from millpond.broker.outcomes import RELEASE, SUCCEEDED, DeadLetter
from millpond.broker.outgoing import compose
from millpond.worker.celery.request import PondRequest
from millpond.worker.report.event_sampling import BURST_SECONDS, EventSampling
from millpond.worker.report.metering import Metering
from tests.harness.manual_clock import ManualClock

DELIVERY = Delivery(Message.decode(compose("k", {}, queue="default", sent_at_ms=0).payload))


def chosen(
    sample: EventSampling, clock: ManualClock, *, per_second: float, seconds: float, jitter: float = 0
) -> list[bool]:
    """Offer tasks at a rate, each up to `jitter` seconds late. Return for each whether it was chosen."""
    start, seeded = clock.now, random.Random(7)
    late = sorted(n / per_second + seeded.uniform(0, jitter) for n in range(int(per_second * seconds)))
    found = []
    for at in late:
        clock.now = start + at
        found.append(sample.shows_events(DELIVERY))
    return found


def test_at_the_rate_every_task_is_shown() -> None:
    """200 tasks a second for ten minutes, in gusts of five seconds, are all chosen."""
    clock = ManualClock(1_000.0)
    assert all(chosen(EventSampling(200, clock), clock, per_second=200, seconds=600, jitter=5))


def test_beyond_the_rate_a_sample_is_shown() -> None:
    """Of 5,000 a second, a burst is chosen, then 200 a second, spread over the time."""
    clock = ManualClock(1_000.0)
    sample = EventSampling(200, clock)
    found = chosen(sample, clock, per_second=5_000, seconds=10)
    assert all(found[: int(200 * BURST_SECONDS)])
    assert sum(found) == 200 * BURST_SECONDS + 200 * 10 - 1
    assert [sum(found[second * 5_000 :][:5_000]) for second in range(5, 10)] == [200] * 5
    clock.now += BURST_SECONDS
    assert all(chosen(sample, clock, per_second=2_000, seconds=1))


def test_tasks_are_counted_by_whether_their_events_were_chosen() -> None:
    """Each end is counted once. A failure outside the sample is shown, and counted as shown."""
    metering = Metering()
    for outcome, chosen, seconds in (
        (SUCCEEDED, True, 0.1),
        (SUCCEEDED, False, 0.1),
        (SUCCEEDED, None, 0.1),
        (DeadLetter("ValueError", "no"), False, 0.1),
        (RELEASE, False, None),
    ):
        delivery = Delivery(DELIVERY.message, started_at=0.0, events_shown=chosen)
        metering.on_outcome(delivery, outcome, seconds)
    counted = metering.take_counts(slots=1)
    assert (counted["shown"], counted["left_out"]) == (2, 1)
    assert (counted["ended:succeeded:k"], counted["ended:failed:k"]) == (3, 1)
    assert +metering.take_counts(slots=0) == {}


def test_the_event_of_a_start_is_sent_once() -> None:
    """A task that is reclaimed and sent to another child starts again for the pool, not for Flower."""
    sent: list[str] = []
    request: Any = PondRequest.__new__(PondRequest)
    request.id, request.name, request._task = "one", "kind", SimpleNamespace(send_events=True)
    request._eventer = SimpleNamespace(enabled=True, send=lambda type, **_: sent.append(type))
    for _ in range(2):
        request.on_accepted(1, monotonic())
        request.forget_start()
    request.send_event("task-succeeded")
    assert sent == ["task-started", "task-succeeded"]
