"""The exercises of the essay that Millpond grew from: five workers square integers, until a stop."""

import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from millpond.producer.client import Client
from millpond.producer.message import Message
from millpond.tasks.settings import Settings, child_environment
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import Embedded
from tests.conftest import Eventually
from tests.harness.run_to_end import run_to_end

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "squares.py"
WORKERS = 5
PATIENCE = timedelta(seconds=30)


@pytest.fixture
def client(pond: Embedded) -> Iterator[Client]:
    """A client of a broker that the pool `default` serves, as it ships: five slots."""
    assert pond.settings.table.pools["default"].slots == WORKERS
    with Client(settings=pond.settings) as opened:
        yield opened


def test_five_workers_square_integers(client: Client) -> None:
    """Every integer is squared once, in any order."""
    with client.batch() as batch:
        batch.send_many(Square(n=n) for n in range(300))
    assert sorted(result.value for result in batch.results()) == [n * n for n in range(300)]


def test_five_run_at_a_time_and_the_sixth_when_one_has_ended(
    client: Client, tmp_path: Path, eventually: Eventually
) -> None:
    """Of any number of ready tasks, as many run as the pool has workers."""
    gates = _Gates(tmp_path, count=12)
    with client.batch() as batch:
        batch.send_many(gates.tasks())
    eventually(lambda: len(gates.started()) == WORKERS)
    for ended in range(1, 13):
        assert len(gates.started()) <= WORKERS + ended - 1
        gates.open(sorted(gates.started() - gates.opened)[0])
        eventually(lambda: batch.summary().succeeded == ended)  # noqa: B023  looked at in this turn only
    assert gates.started() == set(gates.names)


def test_the_producer_collects_results_as_they_come(client: Client, tmp_path: Path) -> None:
    """While a slow task runs, the producer already has the results of all others."""
    gates = _Gates(tmp_path, count=1)
    with client.batch() as batch:
        [slow] = [batch.send(each) for each in gates.tasks()]
        batch.send_many(Square(n=n) for n in range(50))
        results = batch.results()
        others = [next(results).value for _ in range(50)]
        assert batch.summary().pending == 1
        assert sorted(others) == [n * n for n in range(50)]
        gates.open(gates.names[0])
        assert [(last.id, last.value) for last in results] == [(slow.id, gates.names[0])]


def test_cancelled_half_way_nothing_new_starts_and_what_had_started_finishes(
    client: Client, tmp_path: Path, eventually: Eventually
) -> None:
    """Of 40, five have ended and five run when the batch is cancelled: ten succeed, 30 never start."""
    gates = _Gates(tmp_path, count=40)
    with client.batch() as batch:
        batch.send_many(gates.tasks())
    for each in eventually(lambda: _all_of(gates.started(), WORKERS)):
        gates.open(each)
    running = eventually(lambda: _all_of(gates.started() - gates.opened, WORKERS))
    eventually(lambda: batch.summary().succeeded == WORKERS)

    assert batch.cancel().unacknowledged == ()
    for each in gates.names:
        gates.open(each)
    summary = batch.wait(PATIENCE)

    assert (summary.succeeded, summary.cancelled, summary.failed) == (10, 30, 0)
    assert running <= {result.value for result in batch.results() if result.state == "succeeded"}
    assert len(gates.started()) == 10


def test_a_task_whose_time_passes_while_it_waits_is_never_run(
    client: Client, tmp_path: Path, eventually: Eventually
) -> None:
    """Behind five slots that are busy for longer, fetched or not, tasks that expire end as `expired`."""
    gates = _Gates(tmp_path, count=WORKERS)
    with client.batch() as batch:
        batch.send_many(gates.tasks())
        eventually(lambda: len(gates.started()) == WORKERS)
        batch.send_many(Message(Square(n=n), expires=timedelta(seconds=0.5)) for n in range(30))
        over = monotonic() + 0.6
        eventually(lambda: monotonic() > over)
        for name in gates.names:
            gates.open(name)
    summary = batch.wait(PATIENCE)
    assert (summary.succeeded, summary.expired, summary.complete) == (WORKERS, 30, True)


def test_a_square_that_has_started_is_squared_though_its_batch_is_cancelled(client: Client) -> None:
    """Results of tasks that ran when their batch was cancelled are there to be collected."""
    with client.batch() as batch:
        first = batch.send(Square(n=0))
        batch.send_many(Square(n=n, hold_seconds=1.0) for n in range(1, 31))
    results = batch.results()
    assert next(results).id == first.id
    batch.cancel()
    rest = list(results)
    finished = [result.value for result in rest if result.state == "succeeded"]
    assert 0 < len(finished) <= 2 * WORKERS
    assert {result.state for result in rest} == {"succeeded", "cancelled"}
    assert len(rest) == 30


@pytest.fixture(scope="module")
def example() -> str:
    """Run the example as a program of its own and return its output."""
    done = run_to_end(
        [sys.executable, str(EXAMPLE)], env=child_environment(Settings(drain_seconds=5)), cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_example_squares_collects_and_cancels(example: str) -> None:
    """The example squares at least the fifty numbers it waits for, and no more than had started."""
    counts = re.match(r"1000 sent, (\d+) done, (\d+) cancelled\nthe first ten: ((?:\d+ ?){10})\n$", example)
    assert counts, example
    done, cancelled = int(counts[1]), int(counts[2])
    assert done + cancelled == 1000
    assert 50 <= done < 200
    assert {int(square) for square in counts[3].split()} <= {n * n for n in range(30)}


@pytest.mark.skipif(len((ROOT / "README.md").read_text()) < 100, reason="there is no README yet")
def test_the_readme_shows_the_example_that_is_run() -> None:
    """The example that a newcomer copies from the README is the one that the test above runs."""
    assert EXAMPLE.read_text() in (ROOT / "README.md").read_text()


def _all_of(names: set[str], count: int) -> set[str] | None:
    return names if len(names) == count else None


class _Gates:
    """Tasks that run until the test opens their gate; each leaves a file when it starts."""

    def __init__(self, folder: Path, *, count: int) -> None:
        self.folder = folder
        self.names = [f"gate-{n:02}" for n in range(count)]
        self.opened: set[str] = set()

    def tasks(self) -> Iterator[Any]:
        from pond_kinds import Gate

        return (Gate(folder=str(self.folder), name=name) for name in self.names)

    def open(self, name: str) -> None:
        self.opened.add(name)
        (self.folder / f"{name}.open").touch()

    def started(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*.started")}
