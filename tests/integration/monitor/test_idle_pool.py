"""A pool without work becomes `idle` within a minute, whatever it did before."""

from pathlib import Path
from time import monotonic

import pytest

from millpond.broker.connection import Store, connect
from millpond.broker.keys import window_key
from millpond.broker.server import server_time_ms
from millpond.broker.stats import heartbeats, window
from millpond.broker.stats.heartbeats import Heartbeat
from millpond.monitor.diagnosis import Diagnosis, diagnose_all
from millpond.monitor.snapshot import read_snapshot
from millpond.producer.client import Client
from millpond.tasks.pools import PoolsTable
from millpond.tasks.settings import settings
from millpond.tasks.squares.contract import Square
from tests.conftest import Eventually
from tests.harness.millpond_command import run_millpond
from tests.harness.one_worker import settings_for, workers

#: The last minute in whole windows, and twice as long again for a busy machine; five minutes are too long.
IDLE_WITHIN_SECONDS = 180.0


def diagnose_default(store: Store, table: PoolsTable) -> Diagnosis:
    """Return the present diagnosis of the pool `default`."""
    found = diagnose_all(store, read_snapshot(store, table))
    return next(diagnosis for diagnosis in found if diagnosis.pool == "default")


def report(store: Store, *, busy: int = 0) -> None:
    """Send the heartbeat of a process of four slots, which had them for a second."""
    heartbeat = Heartbeat(
        *("default.1@here", "default", "here", 1, "threads"),
        slots=4,
        busy=busy,
        in_flight=busy,
        prefetch=0,
        draining=False,
        uptime_seconds=600.0,
        queues=("default",),
    )
    heartbeats.send_heartbeat(store, heartbeat, {"slot_us": 4_000_000})
    window.add_to_window(store, "default", {"slot_us": 4_000_000})


@pytest.mark.parametrize(
    ("seconds_ago", "busy", "state"), [(120, 0, "idle"), (120, 4, "keeps up"), (20, 0, "keeps up")]
)
def test_a_pool_is_idle_a_minute_after_its_last_run(
    seconds_ago: int, busy: int, state: str, store: Store
) -> None:
    """Runs that ended minutes ago do not count, unless a slot still runs one; those of the minute do."""
    report(store, busy=busy)
    then = (server_time_ms(store) - seconds_ago * 1000) // window.WINDOW_MS
    fields = {"slot_us": 40_000_000, "busy_us": 5_000_000, "ended:squares.square": 5}
    store.client.hset(f"{window_key('default', store.prefix)}{then}", mapping=fields)
    found = diagnose_default(store, settings().table)
    assert found.state == state, found.why


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_real_pool_is_idle_before_its_first_task_and_a_minute_after_its_last(
    url: str, tmp_path: Path, eventually: Eventually
) -> None:
    """A fresh worker is idle, keeps up while it has tasks, and is idle again, as `millpond why` has it."""
    chosen = settings_for(url, queue={"bound": 1_000})
    store = connect(url)

    def state() -> str:
        return diagnose_default(store, chosen.table).state

    with workers(chosen, tmp_path), Client(settings=chosen) as client:
        eventually(lambda: state() == "idle")
        with client.batch() as batch:
            batch.send_many(Square(n=n) for n in range(20))
        assert batch.wait(60).succeeded == 20
        ended_at = monotonic()
        eventually(lambda: state() == "keeps up")
        eventually(lambda: state() == "idle", 90, every_seconds=1)
        assert monotonic() - ended_at < IDLE_WITHIN_SECONDS
        shown = run_millpond(chosen, "why", "default", folder=tmp_path).stdout
    store.close()
    assert "default: idle" in shown
    assert "none ended in the last minute" in shown
