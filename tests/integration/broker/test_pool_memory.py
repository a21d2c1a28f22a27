"""The memory that the figures of pools take in the broker, with many kinds and pools."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from time import process_time

import pytest

from millpond.broker import server
from millpond.broker.connection import Store, connect
from millpond.broker.keys import day_key, hours_key, pool_totals_key, pools_key, samples_key, window_key
from millpond.broker.stats import days, heartbeats, history, window
from millpond.broker.stats.calls import add_counted_call
from millpond.broker.stats.heartbeats import Heartbeat
from millpond.broker.stats.histogram import BOUNDS
from millpond.broker.stats.window import KindFigures, Place
from millpond.broker.task_state import TaskState
from millpond.monitor.diagnosis import diagnose_all
from millpond.monitor.snapshot import read_snapshot
from millpond.worker.local.valkey import run_server
from millpond.worker.report.metering import Metering
from tests.conftest import Eventually
from tests.harness.one_worker import settings_for

pytestmark = pytest.mark.slow

KINDS = [f"shop.orders.kind-{n}" for n in range(1_000)]
POOLS = [f"pool-{n}" for n in range(100)]
#: The bound of all of it, bytes.
BOUND = 600e6


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Store]:
    """Run a server for these figures alone."""
    with run_server(tmp_path / "server", extra=["appendonly no"]) as running:
        store = connect(running.url)
        yield store
        store.close()


@cache
def runs_of_every_kind() -> Counter[str]:
    """Return a worker's counters after runs of every kind in every bucket of the histogram."""
    meter = Metering()
    for kind in KINDS:
        for seconds in (*BOUNDS, 2 * BOUNDS[-1]):
            meter.ended.append((kind, TaskState.SUCCEEDED, seconds, seconds, 0.0, None))
        meter.ended.append((kind, TaskState.FAILED, 0.1, 0.1, 0.0, None))
    return meter.take_counts(slots=8)


def add_all(store: Store, pool: str) -> None:
    """Add the figures of every kind to a pool's totals and to its present window, as its worker does."""
    added = runs_of_every_kind()
    about = Heartbeat(f"{pool}.1@host", pool, "host", 1, "threads", 8, 8, 16, 8, False, 60.0, ("default",), 2)
    heartbeats.send_heartbeat(store, about, added)
    fields = window.window_fields(added)
    calls: Counter[str] = Counter()
    for n, kind in enumerate(KINDS[:400]):
        peer = f"10.0.{n // 250}.{n % 250}:5432"
        fields[window.place_field(Place("peer", peer, "psycopg", f"shop.orders:{n}", kind))] = 10_000_000
        add_counted_call(calls, kind, peer, 3, 0.1)
    errors = Counter({window.error_field(kind, "TimeoutError: no answer in 30 s"): 1 for kind in KINDS})
    window.add_to_window(store, pool, fields + calls + errors)


def copy_to_all_pools(store: Store) -> None:
    """Copy a pool's totals to all pools, and its window to each of the windows that are kept."""
    prefix = window_key(POOLS[0], store.prefix)
    [filled] = store.client.keys(f"{prefix}*")
    newest = int(filled.decode().removeprefix(prefix))
    with store.client.pipeline(transaction=False) as pipe:
        pipe.sadd(pools_key(store.prefix), *POOLS)
        for pool in POOLS:
            names = [
                f"{window_key(pool, store.prefix)}{newest - age}"
                for age in range(window.KEPT_MS // window.WINDOW_MS + 1)
            ]
            for name in names:
                if name.encode() != filled:
                    pipe.copy(filled, name)
                    pipe.pexpire(name, window.KEPT_MS)
            if pool != POOLS[0]:
                totals = pool_totals_key(POOLS[0], store.prefix)
                pipe.copy(totals, pool_totals_key(pool, store.prefix))
        pipe.execute()


def live_through_days(store: Store) -> None:
    """Write all entries and samples that are ever kept, at their times, twice as many as are kept."""
    figures = [{kind: KindFigures(ended=1234, failed=12, service_seconds=1234.567) for kind in KINDS}]
    now_ms = server.server_time_ms(store)
    streams = (
        (day_key, days.STEPS, days.STEP_MS),
        (hours_key, days.HOURS, days.HOUR_MS),
        (lambda pool, prefix: samples_key(f"pool:{pool}", prefix), history.KEPT, heartbeats.SAMPLE_MS),
    )
    days._write_entries(store, [day_key(POOLS[0], store.prefix)], figures, days.STEPS, days.STEP_MS)
    days._write_entries(store, [hours_key(POOLS[0], store.prefix)], figures, days.HOURS, days.HOUR_MS)
    history.write_samples(store)
    for key, most, step_ms in streams:
        first = key(POOLS[0], store.prefix)
        [(_, entry), *_] = store.client.xrevrange(first, count=1)
        with store.client.pipeline(transaction=False) as pipe:
            pipe.delete(first)
            for n in range(2 * most, 0, -1):
                pipe.xadd(first, entry, id=f"{now_ms - n * step_ms}-0", maxlen=most, approximate=False)
            for pool in POOLS[1:]:
                pipe.copy(first, key(pool, store.prefix), replace=True)
            pipe.execute()


def test_a_thousand_kinds_in_a_hundred_pools_take_bounded_memory(own: Store, eventually: Eventually) -> None:
    """Days of runs of a thousand kinds in each of a hundred pools take less than 600 MB, for good."""
    empty = own.client.info("memory")["used_memory"]
    add_all(own, POOLS[0])
    copy_to_all_pools(own)
    live_through_days(own)
    taken = own.client.info("memory")["used_memory"] - empty
    assert taken < BOUND
    for pool in POOLS[:2]:
        add_all(own, pool)
    live_through_days(own)
    # A server frees what a copy replaces in a thread of its own.
    eventually(lambda: own.client.info("memory")["used_memory"] - empty < taken * 1.02, 30)
    [totals] = heartbeats.read_totals(own, POOLS[:1])
    assert len(totals.wait) == heartbeats.MOST_KINDS + 1
    assert totals.count_ended() == 2 * len(KINDS) * (len(BOUNDS) + 2)

    snapshot = read_snapshot(own, settings_for("redis://").table)
    one = [view for view in snapshot.pools if view.name == POOLS[7]]
    began = process_time()
    [found] = diagnose_all(own, type(snapshot)(snapshot.now_ms, tuple(one), snapshot.queues))
    assert found.pool == POOLS[7]
    assert process_time() - began < 1, "one pool's answer"
