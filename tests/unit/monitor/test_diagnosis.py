"""The verdict on a pool, from figures made up for each cause."""

from dataclasses import replace

import pytest

from millpond.broker.stats.calls import CallFigures
from millpond.broker.stats.elasticity import Elasticity
from millpond.broker.stats.window import RESULTS, KindFigures, Place
from millpond.monitor.diagnosis import PoolFacts, diagnose
from millpond.monitor.diagnosis.facts import usual_seconds
from millpond.monitor.diagnosis.numbers import clear_seconds, predicted_rate, slots_that_suffice, slots_wanted
from millpond.monitor.diagnosis.shared_fields import backlog_trend
from millpond.monitor.diagnosis.words import diagnosis_lines
from millpond.monitor.formatting import as_sentence
from tests.harness.pool_facts import (
    AWAITED,
    BUSY,
    COMPUTES,
    FAILS,
    LOCK,
    PEER,
    TURNS,
    WAITS,
    calling,
    elastic,
    facts,
    heartbeat,
    idle,
    queue,
    skewed,
    waiting_for_results,
    window,
    with_items,
    with_queue,
)

TWENTY_TRIPS = {"again_looks": 50, "again_segments": 500, "again_micros": 10_000_000}


@pytest.mark.parametrize(
    ("seen", "state", "name", "words"),
    [
        (replace(BUSY, view=replace(BUSY.view, running=())), "no worker", "", "no process"),
        (with_queue(ready=5, paused=True), "paused", "q", "is paused"),
        (replace(BUSY, view=replace(BUSY.view, drained_at_ms=1)), "drained", "", "is drained"),
        (with_queue(ready=900, rate=10.0, out_rate=9.5), "limit", "q", "10 tasks a second"),
        (with_queue(ready=900, in_flight=3, in_rate=1) , "unclear", "10.0.0.7:5432", ""),
        (replace(BUSY, view=replace(BUSY.view, queues=(queue(),))), "keeps up", "", "100%"),
        (with_queue(ready=5), "keeps up", "", ""),
        (with_queue(ready=100, in_rate=1.0), "catching up", "", "cleared in"),
        (replace(BUSY, minute=window(5)), "unclear", "", "too little data"),
        (facts((PEER, 0.9), recent=window(12, **FAILS)), "failing", "order", "OSError"),
        (
            facts((COMPUTES, 0.9), mean=0.001, view=replace(BUSY.view, queues=(queue(ready=100_000),))),
            "batching",
            "",
            "costs more",
        ),
        (facts((COMPUTES, 0.3), (WAITS, 0.6)), "processor", "", "computing"),
        (facts((COMPUTES, 0.2), (TURNS, 0.7)), "processor", "", "interpreter"),
        (facts((LOCK, 0.8)), "lock", "SQLite", "shop.orders:9"),
        (calling(**TWENTY_TRIPS), "batching", PEER.name, "20"),
        (calling(again_looks=50, again_segments=50, again_micros=10_000_000), "unclear", PEER.name, ""),
        (calling(**TWENTY_TRIPS, waits=50, wait_millis=1_000), "batching", PEER.name, "20"),
        (calling(**TWENTY_TRIPS, waits=50, wait_millis=10_000), "unclear", PEER.name, ""),
        (replace(calling(**TWENTY_TRIPS), elasticity=elastic(0.0)), "dependency", PEER.name, "saturated"),
        (with_items(0.35, 0.01), "batching", PEER.name, "does not depend"),
        (with_items(0.0, 0.1), "unclear", PEER.name, ""),
        (waiting_for_results(), "lock", RESULTS, "no slot is left to run those"),
        (facts((AWAITED, 0.9)), "unclear", RESULTS, "it is not known whether"),
        (idle(broker_seconds=0.5), "broker", "", "the broker answers in 500"),
        (replace(idle(broker_seconds=0.5), is_probed=True), "unclear", PEER.name, ""),
        (idle(loop_busy=0.9, broker_seconds=0.5), "processor", "", "fetch, decode and settle"),
        (idle(loop_busy=0.4), "unclear", "", "slots wait for messages"),
        (skewed(busy=0), "skew", "p.1@h", "4 tasks wait in process p.1@h"),
        (skewed(busy=8), "keeps up", "", ""),
        (idle(children=200), "recycling", "", "a child is replaced after"),
        (replace(BUSY, elasticity=elastic(0.81, 0.02, step=0.55)), "unclear", PEER.name, "not yet certain"),
        (replace(BUSY, elasticity=elastic(0.58, 0.1, step=0.0)), "dependency", PEER.name, "saturated"),
        (replace(BUSY, usual={"order": 0.1}), "dependency", "10.0.0.7:5432", "4.0 times"),
        (replace(BUSY, elasticity=elastic(0.95)), "workers", "", "elasticity 0.95 ± 0.10"),
        (replace(BUSY, elasticity=elastic(0.05)), "dependency", "10.0.0.7:5432", "saturated"),
        (replace(BUSY, elasticity=elastic(0.6, 0.3)), "unclear", PEER.name, "not yet certain"),
        (BUSY, "unclear", "10.0.0.7:5432", "it is not known whether"),
    ],
)  # fmt: skip
def test_each_cause_is_told_from_the_others(seen: PoolFacts, state: str, name: str, words: str) -> None:
    """Figures that have one cause get it, with its name, figures and a command."""
    verdict = diagnose(seen)
    assert verdict.state == state, verdict
    assert name in verdict.name
    assert words in verdict.why
    assert 0 < verdict.confidence <= 1
    assert "\n".join(diagnosis_lines(verdict)).startswith(f"p: {state}")


def test_a_failing_pool_names_the_queue_with_its_dead_letters() -> None:
    """The command for a pool whose runs fail lists the dead letters of its queue that has the most."""
    failing = facts((PEER, 0.9), recent=window(12, **FAILS))
    (one,) = failing.view.queues
    queues = (one, replace(one, depth=replace(one.depth, queue="slow", dead=7)))
    verdict = diagnose(replace(failing, view=replace(failing.view, queues=queues)))
    assert (verdict.state, verdict.command) == ("failing", "millpond dead list slow")


@pytest.mark.parametrize(
    "seen",
    [
        replace(BUSY, minute=replace(BUSY.minute, calls={("order", ""): CallFigures(runs=99, micros=10**7)})),
        facts((PEER, 0.0)),
    ],
    ids=["calls without items", "samples without time"],
)
def test_figures_of_nothing_are_no_error(seen: PoolFacts) -> None:
    """Lists that are all empty, and places with no time, name no cause."""
    assert diagnose(seen).state == "unclear"


SLEEP = Place("sleep", line="shop.orders:3", kind="order")


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (
            facts((PEER, 0.3), (LOCK, 0.35), (COMPUTES, 0.2)),
            "41% of that time waiting for SQLite (by sqlite3",
        ),
        (facts((PEER, 0.35), (SLEEP, 0.45), elasticity=elastic(0.0)), "10.0.0.7:5432 (by psycopg"),
        (replace(facts((LOCK, 0.2), (Place("unknown"), 0.7)), usual={"order": 0.1}), "for the dependency"),
    ],
)
def test_a_share_of_time_is_told_of_its_own_place(seen: PoolFacts, words: str) -> None:
    """A place with more time, of a sort that the rule does not ask about, does not lend its name."""
    assert words in diagnose(seen).why


@pytest.mark.parametrize(("host_busy", "state"), [(0.97, "processor"), (0.5, "dependency")])
def test_what_saturates_without_a_name_is_the_processor_of_a_full_host(host_busy: float, state: str) -> None:
    """So are slots that compute for less than half of their time, and wait for nothing that has a name."""
    unknown = Place("unknown", kind="order")
    seen = facts((COMPUTES, 0.4), (unknown, 0.5), elasticity=elastic(0.0))
    crowded = replace(seen.view, running=(heartbeat(host_busy=host_busy),))
    assert diagnose(replace(seen, view=crowded)).state == state


@pytest.mark.parametrize(("computes", "state"), [(0.35, "processor"), (0.1, "dependency")])
def test_slots_that_compute_beside_waits_without_a_name_are_saturated_processors(
    computes: float, state: str
) -> None:
    """Where C code holds the interpreter, samples come late, and runs look like waits for other threads."""
    waits = Place("thread", "", "re", "shop.orders:7", "order")
    seen = facts((COMPUTES, computes), (waits, 0.9 - computes), elasticity=elastic(0.0))
    assert diagnose(seen).state == state


@pytest.mark.parametrize(
    "elasticity",
    [
        None,
        elastic(0.75, 0.2),
        elastic(2.0, 1.29),
        elastic(0.95, slots=4),  # of other slots
        elastic(0.95, service_seconds=0.05),  # of runs that took an eighth
    ],
    ids=["not measured", "not sure", "noise", "other slots", "shifted"],
)
def test_more_slots_are_never_advised_without_proof(elasticity: Elasticity | None) -> None:
    """`workers` needs an elasticity that is measured, sure, of these slots and of runs like these."""
    assert diagnose(replace(BUSY, elasticity=elasticity)).state == "unclear"


@pytest.mark.parametrize("places", [((COMPUTES, 0.7),), ((LOCK, 0.7),)], ids=["computing", "lock"])
def test_an_explanation_goes_before_a_measured_elasticity(places: tuple[tuple[Place, float], ...]) -> None:
    """Slots that compute or wait for a lock are not multiplied, whatever half of them did."""
    assert diagnose(facts(*places, elasticity=elastic(0.95))).state in ("processor", "lock")


def test_a_pool_that_waits_for_itself_clears_nothing() -> None:
    """The rate of the runs before foretells no end of the backlog, once no run ends any more."""
    seen = waiting_for_results()
    ended_before = replace(seen.minute, kinds=BUSY.minute.kinds)
    assert backlog_trend(replace(seen, minute=ended_before)).startswith("cleared in ")
    assert diagnose(replace(seen, minute=ended_before)).trend == ""


def test_the_numbers_follow_from_what_was_measured() -> None:
    """Slots by Little's law, at most half as many again; the rate by the elasticity; the time by both."""
    assert slots_wanted(8, in_rate=24.0, service_seconds=0.4) == 12
    assert slots_wanted(8, in_rate=17.0, service_seconds=0.4) == 9
    assert slots_wanted(8, in_rate=500.0, service_seconds=0.4) == 12
    assert predicted_rate(elastic(1.0), 12) == pytest.approx(30.0)
    assert predicted_rate(elastic(0.0), 12) == pytest.approx(20.0)
    assert clear_seconds(100, rate=30.0, in_rate=20.0) == pytest.approx(10.0)
    assert clear_seconds(100, rate=20.0, in_rate=20.0) is None
    assert slots_that_suffice(elastic(0.05), usual_seconds=0.1) == 2
    assert slots_that_suffice(elastic(0.05), usual_seconds=None) == 4


def test_a_verdict_for_more_slots_has_a_number_and_what_it_brings() -> None:
    """The advice has the number of slots, their gain, and the setting for them."""
    seen = replace(with_queue(ready=1_000, in_rate=24.0), elasticity=elastic(1.0))
    verdict = diagnose(seen)
    assert (verdict.slots, verdict.slots_wanted, verdict.predicted_rate) == (8, 12, 30.0)
    assert "concurrency = 12 under [pools.p]" in verdict.advice


def test_the_usual_is_by_kind_so_that_a_mixture_may_change() -> None:
    """Twice as many slow tasks are not a slow dependency: each kind takes as long as before."""
    past = [window(10, mean=0.1)] * 3
    past[0].kinds["report"] = KindFigures(ended=20, service_seconds=20.0)
    usual = usual_seconds(past, [])
    assert usual == {"order": pytest.approx(0.1), "report": pytest.approx(1.0)}
    mixed = window(12, (PEER, 0.9))
    mixed.kinds = {
        "order": KindFigures(ended=20, service_seconds=2.0),
        "report": KindFigures(ended=80, service_seconds=80.0),
    }
    seen = replace(BUSY, recent=mixed, minute=mixed, usual=usual)
    assert seen.slowdown == pytest.approx(1.0)
    assert diagnose(seen).state == "unclear"


def test_a_queue_keeps_its_name_at_the_head_of_a_sentence() -> None:
    """A page writes verdicts as sentences; a command keeps its small letter."""
    assert as_sentence(diagnose(with_queue(ready=3, paused=True)).why).startswith("Queue q is paused")


@pytest.mark.parametrize(
    ("came", "words"),
    [(1.48, "grew from 8 to 12 slots: +48%, +50% predicted"), (1.02, "no gain, go back to 8")],
)
def test_what_came_of_more_slots_is_said_beside_what_was_predicted(came: float, words: str) -> None:
    """After a change of slots, the gain is compared with the one that was predicted."""
    before = elastic(1.0)
    view = replace(BUSY.view, running=(heartbeat(), replace(heartbeat(), name="p.2@h", slots=4)))
    recent = window(10, (PEER, 0.9))
    recent.kinds["order"].ended = round(before.rate * came * 10)
    found = diagnose(replace(BUSY, view=view, recent=recent, elasticity=before))
    assert words in found.outcome
    assert words in "\n".join(diagnosis_lines(found))


def test_runs_are_compared_with_an_hour_ago_and_yesterday() -> None:
    """Runs that take twice as long as an hour ago, and as long as yesterday, are said to."""
    hour, day = 3_600_000, 86_400_000
    now = 10 * day
    earlier = {at: {"order": KindFigures(ended=100, service_seconds=100 * mean)} for at, mean in (
        (now - hour, 0.2), (now - day, 0.4)
    )}  # fmt: skip
    found = diagnose(replace(BUSY, now_ms=now, days=tuple(sorted(earlier.items()))))
    assert found.compared == "runs of the same kinds take 2.0 times as long as an hour ago"


def test_each_kind_has_its_figures() -> None:
    """A diagnosis has the part of the time, the rate, the times and the failures of each kind."""
    found = diagnose(replace(BUSY, recent=window(12, **FAILS), usual={"order": 0.2}))
    [kind] = found.kinds
    assert (kind.kind, kind.time_share, kind.error) == ("order", 1.0, "OSError")
    assert kind.rate == pytest.approx(20)
    assert (kind.mean_seconds, kind.usual_seconds) == (pytest.approx(0.4), 0.2)
    assert kind.failed > 0.9
