"""Diagnoses of pools that cannot be measured as they are, and of queues that something holds."""

from dataclasses import replace
from pathlib import Path

import pytest

from millpond.broker.limits import Limits
from millpond.broker.stats import probing
from millpond.broker.stats.elasticity import Elasticity
from millpond.broker.stats.window import Place, Window
from millpond.monitor.diagnosis import PoolFacts, diagnose
from millpond.monitor.diagnosis.words import diagnosis_lines
from millpond.monitor.snapshot import QueueView
from tests.harness.pool_facts import (
    BUSY,
    COMPUTES,
    LOCK,
    PEER,
    elastic,
    facts,
    heartbeat,
    idle,
    named,
    of_few_slots,
    of_two,
    queue,
    window,
    with_queues,
)


@pytest.mark.parametrize(
    ("measured", "place", "state", "words"),
    [
        (None, PEER, "unclear", "--second-slot"),
        (None, LOCK, "lock", "SQLite"),
        (None, COMPUTES, "processor", "there is room for more processes"),
        (of_two(1.0), PEER, "workers", "set processes = 2"),
        (of_two(1.0), COMPUTES, "workers", "set processes = 2"),
        (of_two(0.0), PEER, "dependency", "10.0.0.7:5432"),
        (of_two(0.0), COMPUTES, "processor", "measured, more slots on these hosts bring no more"),
        (of_two(0.6), PEER, "unclear", "--second-slot"),
    ],
)
def test_one_slot_is_told_with_a_second_one(
    measured: Elasticity | None, place: Place, state: str, words: str
) -> None:
    """`workers` is said of one slot only if a second one was measured to bring more."""
    found = diagnose(of_few_slots((place, 0.9), elasticity=measured))
    assert found.state == state
    assert words in "\n".join(diagnosis_lines(found))
    assert found.slots_wanted == {"workers": 2, "dependency": 1}.get(state)


def test_slots_that_compute_beside_free_processors_are_measured() -> None:
    """Computing is no reason against more slots while processors are free, and no proof for them."""
    seen = of_few_slots((COMPUTES, 0.95), slots=2)
    assert (diagnose(seen).state, diagnose(seen).command) == ("processor", "millpond why p --probe")
    two = replace(elastic(1.0), slots=2, part=1, step=None)
    assert diagnose(replace(seen, elasticity=two)).state == "workers"
    crowded = replace(seen.view, running=(heartbeat("prefork", slots=2, host_busy=1.0, cores=2),))
    assert diagnose(replace(seen, elasticity=two, view=crowded)).state == "processor"


@pytest.mark.parametrize(
    ("place", "state"), [(PEER, "unclear"), (LOCK, "lock"), (COMPUTES, "processor")], ids=str
)
def test_of_long_runs_is_said_what_their_slots_wait_for(place: Place, state: str) -> None:
    """Where too few runs end to measure, the answer does not ask for some seconds of patience."""
    seen = facts((place, 0.9), mean=100.0)
    found = diagnose(replace(seen, minute=window(300, (place, 0.9), mean=100.0)))
    assert found.state == state
    assert "a few seconds" not in found.advice
    if state == "unclear":
        assert (found.name, "a run takes 100.0 s" in found.why) == (PEER.name, True)


def test_a_saturated_dependency_is_named_where_handlers_sleep_until_it_takes_them() -> None:
    """Of a service that answers 429, slots see little: they are asleep."""
    sleeps = Place("sleep", "", "", "shop.orders:44", "order")
    found = diagnose(facts((sleeps, 0.9), (PEER, 0.05), elasticity=elastic(0.0)))
    assert (found.state, found.name) == ("dependency", PEER.name)
    assert "asleep at shop.orders:44" in found.evidence[-1]
    inside = diagnose(facts((sleeps, 0.6), (LOCK, 0.4), elasticity=elastic(0.0)))
    assert (inside.state, inside.name) == ("dependency", "SQLite")


@pytest.mark.parametrize(
    ("held", "other", "state"),
    [
        (queue(ready=50, paused=True), queue(ready=1_000), "workers"),
        (queue(ready=50, paused=True), queue(ready=3), "paused"),
        (queue(ready=50, paused=True), queue(ready=1_000, paused=True), "paused"),
        (queue(ready=900, rate=10.0, out_rate=9.5), queue(ready=1_000), "workers"),
        (queue(ready=900, rate=10.0, out_rate=9.5), queue(ready=0), "limit"),
    ],
)
def test_a_held_queue_explains_its_own_backlog_only(held: QueueView, other: QueueView, state: str) -> None:
    """A paused or limited queue is no reason for the backlog of another one in a full pool."""
    found = diagnose(with_queues(named(held, "held"), named(other, "other"), elasticity=elastic(1.0)))
    assert found.state == state


def test_an_in_flight_limit_bounds_the_slots_that_are_advised() -> None:
    """Slots beyond the in-flight limit of a queue are not advised; at the limit, the limit is named."""
    limited = replace(queue(ready=1_000, in_flight=8), limits=Limits(in_flight=10))
    found = diagnose(with_queues(limited, elasticity=elastic(1.0)))
    assert (found.state, found.slots_wanted) == ("workers", 10)
    at_it = replace(queue(ready=1_000, in_flight=8), limits=Limits(in_flight=8))
    assert diagnose(with_queues(at_it, elasticity=elastic(1.0))).state == "limit"


def test_messages_that_are_held_in_the_processes_are_told_from_a_late_broker() -> None:
    """Free slots beside messages that have not started are no fault of the broker."""
    seen = idle()
    assert "slots wait for messages" in diagnose(seen).why
    holding = replace(seen.view, running=(heartbeat(busy=2, in_flight=16),))
    assert (
        "14 messages are in its processes and have not started" in diagnose(replace(seen, view=holding)).why
    )


def test_an_idle_pool_with_delayed_tasks_says_so() -> None:
    """A queue of tasks for later is no mystery."""
    later = replace(queue(), depth=replace(queue().depth, delayed=40))
    view = replace(BUSY.view, queues=(later,), running=(heartbeat(busy=0, in_flight=0),))
    found = diagnose(PoolFacts(view, Window(), Window()))
    assert (found.state, "40 are delayed" in found.why) == ("idle", True)


def test_the_page_has_the_conditions_of_a_probe() -> None:
    """The README names the figures by which a pool is chosen."""
    page = (Path(__file__).parents[3] / "monitor" / "README.md").read_text()
    for condition in (
        f"once {probing.ENDS} runs ended in its last minute",
        f"of which {probing.SECONDS:.0f} s were seen",
        f"at least {probing.FULL:.0%} of its slots".replace("%", " %"),
        f"runs of {probing.SHORT_SECONDS * 1000:.0f} ms or more",
        f"ready tasks for {probing.BACKLOG_SECONDS:.0f} s",
    ):
        assert condition in page
