"""Drain a pool from elsewhere, with `millpond drain`, while its supervisor keeps its processes running."""

import json
import subprocess
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from millpond.broker.connection import Store
from millpond.broker.control import state
from millpond.broker.control.state import ALL_FUTURE
from millpond.broker.inspect.depth import read_depth
from millpond.broker.keys import known_epochs_key
from millpond.broker.stats.heartbeats import read_processes
from millpond.monitor.snapshot import read_snapshot
from millpond.monitor.tables import pool_row
from millpond.producer.client import Client
from millpond.tasks.pools import PoolsTable
from millpond.tasks.settings import Settings, child_environment
from millpond.tasks.squares.contract import Square
from tests.conftest import Eventually
from tests.harness.gates import gate
from tests.harness.millpond_command import MILLPOND
from tests.harness.supervisor_process import supervised


def millpond(settings: Settings, *arguments: str) -> "subprocess.Popen[str]":
    """Start a command beside the workers."""
    env = child_environment(settings)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*MILLPOND, *arguments], env=env, **pipes)


def ended(command: "subprocess.Popen[str]") -> tuple[int, list[str], str]:
    """Return a command's exit code, its lines, and its errors."""
    out, err = command.communicate(timeout=60)
    return command.returncode, out.splitlines(), err


def acts_on_drain(store: Store) -> bool:
    """True once the pool is drained and a process has acknowledged it."""
    known = state.read_state(store)
    return bool(known.drained) and str(known.epoch).encode() in store.client.hvals(known_epochs_key(""))


@pytest.fixture
def settings(url: str) -> Settings:
    """Return settings with two threads and two seconds to drain."""
    table = {"pools": {"default": {"concurrency": 2, "prefetch": 4}}}
    return Settings(broker_url=url, kinds=("pond_kinds",), drain_seconds=2, table=table)


def changed(settings: Settings, drain_seconds: float, **pool: Any) -> Settings:
    """Return the settings with another time to drain and another pool."""
    table = PoolsTable(pools={"default": pool})  # type: ignore[dict-item]
    return settings.model_copy(update={"drain_seconds": drain_seconds, "table": table})


def test_a_drained_pool_finishes_what_runs_and_waits_until_it_resumes(
    settings: Settings, plain_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    """Running tasks end, prefetched ones are released, and no task starts until `resume`."""
    settings = settings.model_copy(update={"drain_seconds": 60})
    with supervised(settings, tmp_path), Client(settings=settings) as client, client.batch() as batch:
        batch.send_many(gate(tmp_path, f"g{n}") for n in range(6))
        started = eventually(lambda: len(found := list(tmp_path.glob("*.started"))) == 2 and found)
        draining = millpond(settings, "drain", "default", "--json")
        eventually(lambda: acts_on_drain(plain_store))
        eventually(lambda: read_depth(plain_store, "default").ready == 4)
        batch.send_many(Square(n=n) for n in range(3))
        assert draining.stdout is not None
        first = json.loads(draining.stdout.readline())
        assert 2 <= first["running"] <= 6, "it may look before what was fetched is back"
        assert draining.poll() is None, "two tasks still run"
        for n in range(6):
            (tmp_path / f"g{n}.open").touch()
        code, lines, _ = ended(draining)
        assert code == 0
        assert json.loads(lines[-1]) == {
            "pool": "default",
            "drained": True,
            "running": 0,
            "processes": 1,
            "unacknowledged": [],
        }
        assert (batch.summary().succeeded, read_depth(plain_store, "default").ready) == (2, 7)
        assert set(tmp_path.glob("*.started")) == set(started)
        (shown,) = (
            view for view in read_snapshot(plain_store, settings.table).pools if view.name == "default"
        )
        assert pool_row(shown)[1] == "1 of 1, drained"
        code, (line,), _ = ended(millpond(settings, "resume", "default"))
        assert (code, line) == (0, "default: resumed")
        eventually(lambda: batch.summary().succeeded == 9)
        assert read_depth(plain_store, "default").counters.get("redelivered", 0) == 0


@pytest.mark.slow
def test_at_the_deadline_what_runs_goes_back_and_a_new_process_waits(
    settings: Settings, plain_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    """A task that does not end is killed, no delivery counted; a new process of the pool does not take it."""
    with supervised(settings, tmp_path), Client(settings=settings) as client:
        client.send(gate(tmp_path, "stuck"))
        started = tmp_path / "stuck.started"
        eventually(started.exists)
        code, lines, _ = ended(millpond(settings, "drain", "default"))
        assert (code, lines[-1].split(",")[:2]) == (0, ["default: drained", " no task runs"])
        counts = read_depth(plain_store, "default")
        assert (counts.ready, counts.counters.get("redelivered", 0)) == (1, 0)
        started.unlink()
        eventually(lambda: (tmp_path / "log").read_text().count("takes messages") == 2, timeout=30)
        assert (read_depth(plain_store, "default").ready, started.exists()) == (1, False)
        (tmp_path / "stuck.open").touch()
        ended(millpond(settings, "resume", "default"))
        eventually((tmp_path / "stuck.done").exists)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_a_cancellation_holds_while_a_worker_drains_and_after_it(
    executor: str, settings: Settings, plain_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    """A draining worker is not waited for; its tasks end, and a retry that comes back later is not run."""
    settings = changed(settings, 120, executor=executor, concurrency=2, prefetch=4)
    with Client(settings=settings) as client:
        with supervised(settings, tmp_path) as process, client.batch() as batch:
            batch.send_many(gate(tmp_path, f"g{n}") for n in range(6))
            eventually(lambda: len(list(tmp_path.glob("*.started"))) == 2)
            process.terminate()
            eventually(lambda: read_depth(plain_store, "default").ready == 4)
            begun = monotonic()
            answer = batch.cancel()
            assert (answer.unacknowledged, answer.settled) == ((), 4)
            assert monotonic() - begun < 60, "the drain was waited for"
            for n in range(6):
                (tmp_path / f"g{n}.open").touch()
            assert process.wait(60) == 0
        assert (batch.summary().succeeded, batch.summary().cancelled) == (2, 4)
        late = client.send(gate(tmp_path, "late"), id="late", delay=timedelta(seconds=1))
        assert client.cancel(late.id).settled == 1
        client.send(gate(tmp_path, "late"), id="late")
        with supervised(settings, tmp_path):
            eventually(lambda: read_depth(plain_store, "default").counters["settled"] == 8)
        assert not (tmp_path / "late.started").exists()


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_outcomes_that_are_gathered_at_the_signal_are_sent_before_the_drain(
    executor: str, settings: Settings, plain_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    """Tasks that were released just before SIGTERM do not wait for those that still run.

    The event loop gathers outcomes for a moment, here for a minute, and ends before it has sent them.
    """

    def in_flight() -> int:
        return sum(each.in_flight for each in read_processes(plain_store))

    settings = changed(settings, 120, executor=executor, concurrency=2, prefetch=4)
    settings = settings.model_copy(update={"kinds": ("gathering_kinds",)})
    with Client(settings=settings) as client, client.batch() as batch:
        batch.send_many(gate(tmp_path, f"g{n}") for n in range(6))
        with supervised(settings, tmp_path) as process:
            eventually(lambda: len(list(tmp_path.glob("*.started"))) == 2 and in_flight() == 2, timeout=30)
            counts = read_depth(plain_store, "default")
            assert (counts.ready, counts.in_flight) == (0, 6), "the outcomes are gathered"
            process.terminate()
            eventually(lambda: read_depth(plain_store, "default").ready == 4)
            assert process.poll() is None, "two tasks still run"
            for n in range(6):
                (tmp_path / f"g{n}.open").touch()
            assert process.wait(60) == 0
        assert batch.summary().succeeded == 2
    counts = read_depth(plain_store, "default")
    assert (counts.ready, counts.in_flight, counts.counters.get("redelivered", 0)) == (4, 0, 0)


def test_a_cancelled_task_is_killed_while_its_worker_stops(
    settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    """While a worker stops, a cancelled task's child is killed at once, and it counts as cancelled."""
    settings = changed(settings, 60, executor="prefork", concurrency=2)
    with Client(settings=settings) as client, client.batch() as batch:
        with supervised(settings, tmp_path) as process:
            stuck, _ = (batch.send(gate(tmp_path, name)) for name in ("stuck", "other"))
            eventually(lambda: len(list(tmp_path.glob("*.started"))) == 2)
            child = int((tmp_path / "stuck.started").read_text())
            process.terminate()
            known, nothing_starts = known_epochs_key(""), str(ALL_FUTURE).encode()
            eventually(lambda: nothing_starts in client.store.client.hvals(known))
            assert client.cancel(stuck.id, terminate=True).unacknowledged == ()
            eventually(lambda: batch.summary().cancelled == 1)
            assert not psutil.pid_exists(child)
            assert process.poll() is None, "the drain goes on"
            (tmp_path / "other.open").touch()
            assert process.wait(60) == 0
        (ended, done) = batch.results()
    counts = read_depth(client.store, "default")
    assert (ended.id, ended.state, ended.error) == (stuck.id, "cancelled", "ended while it ran")
    assert (done.state, counts.ready, counts.in_flight) == ("succeeded", 0, 0)
    assert (counts.dead, counts.counters.get("redelivered", 0)) == (0, 0)


@pytest.mark.slow
def test_a_task_that_ends_before_the_deadline_counts_beside_endless_ones(
    settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    """Of four children one ends before the deadline: its task is settled, the other three are released."""
    settings = changed(settings, 1.2, executor="prefork", concurrency=4)
    with Client(settings=settings) as client, client.batch() as batch:
        with supervised(settings, tmp_path) as process:
            batch.send_many(gate(tmp_path, f"g{n}") for n in range(4))
            eventually(lambda: len(list(tmp_path.glob("*.started"))) == 4)
            process.terminate()
            eventually(lambda: "Warm shutdown" in (tmp_path / "log").read_text())
            (tmp_path / "g2.open").touch()
            assert process.wait(60) == 0
        counts = read_depth(client.store, "default")
        assert (batch.summary().succeeded, counts.ready, counts.in_flight) == (1, 3, 0)
