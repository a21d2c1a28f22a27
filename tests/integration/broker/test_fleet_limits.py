"""Limits of a queue hold for all its workers together, and may be changed while they run."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.inspect import depth as inspect_depth
from millpond.producer.client import Client
from millpond.producer.message import Message
from tests.conftest import Eventually
from tests.harness.noted import read_notes
from tests.harness.one_worker import settings_for, workers

PATIENCE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def client(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of two worker processes of four slots each."""
    settings = settings_for(module_url)
    with workers(settings, tmp_path_factory.mktemp("fleet"), count=2), Client(settings=settings) as opened:
        yield opened


def act(file: Path, name: int, seconds: float = 0.0) -> Any:
    """Return a task that notes when it runs."""
    from broker_kinds import Act

    return Act(file=str(file), name=str(name), seconds=seconds)


def most_at_once(file: Path) -> int:
    """Return how many ran at the same time at most."""
    steps = [(note.at, 1) for note in read_notes(file)] + [(note.at, -1) for note in read_notes(file, "end")]
    running = most = 0
    for _at, step in sorted(steps):
        running += step
        most = max(most, running)
    return most


def test_so_many_run_at_once_and_no_more(client: Client, file: Path) -> None:
    """An in-flight limit of three leaves three of the fleet's eight slots at work for the queue."""
    limits.change_limits(client.store, "default", in_flight=3)
    with client.batch() as batch:
        batch.send_many(act(file, n, 0.1) for n in range(15))
    assert batch.wait(PATIENCE).succeeded == 15
    limits.change_limits(client.store, "default", in_flight=None)
    assert most_at_once(file) == 3


def test_so_many_a_second_start_and_no_more(client: Client, file: Path) -> None:
    """With a rate limit, the first task starts at once, the others one by one as the fleet's permits come."""
    limits.change_limits(client.store, "default", rate=20, burst=1)
    with client.batch() as batch:
        batch.send_many(act(file, n) for n in range(11))
    assert batch.wait(PATIENCE).succeeded == 11
    limits.change_limits(client.store, "default", rate=None, burst=None)
    starts = sorted(note.at for note in read_notes(file))
    assert starts[-1] - starts[0] >= 0.4, "ten permits of a twentieth of a second, less a late first start"


def test_a_paused_queue_is_handed_out_when_it_goes_on(
    client: Client, file: Path, eventually: Eventually
) -> None:
    """No task of a paused queue starts; its ready tasks start at once when it is resumed."""
    limits.change_limits(client.store, "default", paused=True)
    before = inspect_depth.read_depth(client.store, "default").counters["fetched"]
    with client.batch() as batch:
        batch.send_many(act(file, n) for n in range(5))
    # A look of every worker at least, which comes once a second: each takes a turn, and gets nothing.
    looked = client.now_ms() + 1_500
    eventually(lambda: client.now_ms() > looked)
    depth = inspect_depth.read_depth(client.store, "default")
    assert (depth.ready, depth.counters["fetched"], read_notes(file)) == (5, before, [])
    limits.change_limits(client.store, "default", paused=None)
    assert batch.wait(PATIENCE).succeeded == 5


def test_a_delayed_task_starts_at_its_time(client: Client, file: Path) -> None:
    """A delayed task is never early; an idle worker runs it when it is due, and it takes no slot before."""
    begun = client.now_ms()
    with client.batch() as batch:
        batch.send_many(Message(act(file, n), delay=timedelta(milliseconds=300 + 50 * n)) for n in range(10))
    assert inspect_depth.read_depth(client.store, "default").in_flight == 0
    assert batch.wait(PATIENCE).succeeded == 10
    late = sorted(note.at * 1000 - (begun + 300 + 50 * int(note.name)) for note in read_notes(file))
    print("started after their time, ms:", [round(each, 1) for each in late])
    assert late[0] >= 0, "the clocks are of one host"
    assert late[len(late) // 2] < 250, "nobody waited for the look of a second"


def test_a_worker_of_threads_names_time_limits_that_it_does_not_keep(url: str, tmp_path: Path) -> None:
    """Nothing can end a thread, so its worker names the limit as it starts."""
    log = restarted(url, tmp_path / "limited", soft_limit_seconds=1, hard_limit_seconds=2)
    assert log.count("soft_limit_seconds = 1 and hard_limit_seconds = 2 of queue default will end no") == 1


CHANGED = "has changed limits of queue default that were in force"


def restarted(url: str, folder: Path, **queue: Any) -> str:
    """Start and stop a worker whose table has these limits, and return its log."""
    folder.mkdir()
    with workers(settings_for(url, queue=queue), folder) as (worker,):
        pass
    return worker.log


def test_a_start_that_changes_limits_in_force_says_so(url: str, tmp_path: Path) -> None:
    """The table of the last start holds, and its worker's log names each limit that it changes."""
    strict = {"rate": "5/s", "bound": 50, "overflow": "reject"}
    assert CHANGED not in restarted(url, tmp_path / "first", **strict)
    assert CHANGED not in restarted(url, tmp_path / "again", **strict)
    log = restarted(url, tmp_path / "other")
    assert log.count(CHANGED) == 1
    assert "bound 50 -> 10000, overflow reject -> block, rate 5/s -> none." in log
    assert "give all workers of a broker one table of default in [queues]" in log


def test_a_limit_that_is_set_at_run_time_hides_what_a_table_changes(store: Store) -> None:
    """A limit set by `millpond queue set` stays in force whatever a table says, so no change is logged."""

    def declare(**table: Any) -> list[str]:
        return [str(each) for each in limits.declare_limits(store, "q", table, authoritative=True)]

    limits.change_limits(store, "q", rate=9)
    assert declare(bound=50, rate=5.0) == []
    assert declare(bound="30s") == ["bound 50 -> 30s"]
    assert limits.read_limits(store, "q").rate == 9
    limits.change_limits(store, "q", rate=None)
    assert declare(bound="30s", max_deliveries=5) == []
    assert declare(bound="30s", rate=0.5) == ["rate none -> 0.5/s"]
