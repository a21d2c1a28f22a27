"""Where the figures come from: reports of processes, totals of pools, samples of the last hour."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.errors import BrokerAway
from millpond.broker.keys import sampling_key
from millpond.broker.stats import heartbeats, history, probing
from millpond.broker.stats.heartbeats import Heartbeat
from millpond.broker.task_state import TaskState
from millpond.monitor import snapshot
from millpond.tasks.pools import PoolsTable
from millpond.tasks.settings import Settings
from millpond.worker.report import heartbeat
from millpond.worker.report.metering import Metering
from tests.conftest import Eventually

REPORT = Heartbeat("default.1@here", "default", "here", 7, "threads", 5, 2, 3, 16, False, 12.0, ("default",))


def test_reports_stand_for_a_while_and_what_they_add_stays(store: Store) -> None:
    """The figures of two processes add up; those of a process that leaves or falls silent remain."""
    second = replace(REPORT, name="default.2@there", host="there")
    heartbeats.send_heartbeat(
        store, REPORT, {"ended:succeeded:a": 3, "service:0.05:a": 3, "service:us:a": 120_000}
    )
    heartbeats.send_heartbeat(
        store, second, {"ended:succeeded:a": 1, "ended:failed:b": 1, "busy_us": 500_000}
    )
    assert [report.name for report in heartbeats.read_processes(store)] == [
        "default.1@here",
        "default.2@there",
    ]
    [totals] = heartbeats.read_totals(store, ["default"])
    assert (totals.count_ended(), totals.count_ended("failed"), totals.busy_seconds) == (5, 1, 0.5)
    assert (totals.service["a"].count, totals.service["a"].seconds) == (3, 0.12)
    heartbeats.withdraw_heartbeat(store, second.name)
    [silent] = heartbeats.read_processes(store)
    key = next(store.client.scan_iter("*process:default.1@here"))
    assert 0 < store.client.pttl(key) <= heartbeats.KEPT_MS
    store.client.delete(key)
    assert (silent.name, heartbeats.read_processes(store)) == ("default.1@here", [])
    assert next(heartbeats.read_totals(store, ["default"])).count_ended() == 5


def test_one_of_all_who_could_takes_the_samples(store: Store) -> None:
    """Of several heartbeats one is asked to take the samples; the others are not until the period is over."""
    asked = [heartbeats.send_heartbeat(store, replace(REPORT, name=f"p{n}@here"), {}) for n in range(3)]
    assert (asked, history.take_sampling_lock(store)) == ([True, False, False], False)


def test_rates_and_times_are_of_the_last_minute(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures older than the last sample do not count; the history keeps an hour of samples."""
    monkeypatch.setattr(history, "KEPT", 3)
    limits.declare_limits(store, "default", {}, authoritative=True)
    slow = {"ended:succeeded:a": 4, "service:7:a": 4, "slot_us": 60_000_000, "busy_us": 60_000_000}
    heartbeats.send_heartbeat(store, REPORT, slow)
    for _ in range(5):
        history.write_samples(store)
    [kept] = history.HistoryCache(store).samples(["queue:default"])
    assert len(kept) == 3
    quick = {"ended:succeeded:a": 9, "service:0.001:a": 9, "slot_us": 10_000_000, "busy_us": 2_500_000}
    heartbeats.send_heartbeat(store, REPORT, quick)
    [pool] = [view for view in snapshot.read_snapshot(store, PoolsTable()).pools if view.name == "default"]
    assert (pool.service.count, pool.busy, pool.slots) == (9, 2, 5)
    assert pool.service.quantile(0.99) == pytest.approx(0.001, rel=0.05)
    assert pool.utilisation == pytest.approx(0.25)
    assert pool.rate is not None
    assert pool.rate > 0


@pytest.mark.parametrize("trouble", [BrokerAway("gone in between"), ValueError("what a newer version wrote")])
def test_figures_of_a_process_count_once_without_the_samples_too(
    store: Store, monkeypatch: pytest.MonkeyPatch, eventually: Eventually, trouble: Exception
) -> None:
    """A heartbeat that arrived is not sent again when its process then fails to take samples."""
    asked = []

    def fail(store: Store) -> None:
        store.client.delete(sampling_key(store.prefix))  # the next report is to take them as well
        asked.append(1)
        raise trouble

    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(history, "write_samples", fail)
    metering = Metering()
    metering.ended.append(("a", TaskState.SUCCEEDED, None, 0.1, 0.0, None))
    reporting = start_reporting(store, metering)
    eventually(lambda: len(asked) > 3)
    reporting.on_stopped()
    [totals] = heartbeats.read_totals(store, ["default"])
    assert totals.count_ended() == 1


def test_a_process_that_stops_begins_no_probe(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end would cut the probe off, and others could not probe the pool until its lock has expired."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 60.0)
    probed, seen = [], threading.Event()

    def probe(_store: Store, *, share: float) -> None:
        probed.append(share)
        seen.set()

    monkeypatch.setattr(probing, "probe_where_due", probe)
    reporting = start_reporting(store, Metering(), probe_share=0.5)
    assert seen.wait(20)
    reporting.on_stopped()
    assert probed == [0.5]


def start_reporting(
    store: Store, metering: Metering, *, probe_share: float = 0.0
) -> heartbeat.HeartbeatReporter:
    """Start and return the heartbeats of a process of the pool `default`."""
    in_flight = InFlightMessages()
    in_flight.lease_renewer = SimpleNamespace(store=store, renewals=0, losses=0)
    consumer = SimpleNamespace(
        task_consumer=SimpleNamespace(queues=[SimpleNamespace(name="default")]),
        pool=None,
        app=SimpleNamespace(metering=metering),
        hostname="default.1@here",
    )
    reporting = heartbeat.HeartbeatReporter(Settings(probe_share=probe_share), in_flight)
    reporting.on_ready(consumer)
    return reporting
