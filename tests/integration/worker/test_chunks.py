"""Short tasks share a prefork child: one that kills it costs the others nothing."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from millpond.broker.inspect.depth import read_depth
from millpond.producer.batch import Batch
from millpond.producer.client import Client
from millpond.tasks.app import celery_app
from millpond.tasks.contract import Contract
from millpond.tasks.settings import Settings
from tests.conftest import Eventually
from tests.harness.noted import read_names
from tests.harness.one_worker import OneWorker, settings_for, workers

PATIENCE = timedelta(minutes=5)

#: Two children; so the tasks that wait for them go to the first in a piece of eight.
POOL = {"executor": "prefork", "concurrency": 2, "prefetch": 16}


@pytest.fixture(scope="module")
def settings(module_url: str) -> Settings:
    return settings_for(
        module_url,
        pool=POOL,
        queue={"max_deliveries": 2},
        kinds=("broker_kinds", "pond_kinds"),
        drain_seconds=60,
    )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings=settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def worker(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    """Run one worker for the module; it learns the times of kinds, so each test has its own."""
    with workers(settings, tmp_path_factory.mktemp("chunks")) as (running,):
        yield running


def together(client: Client, worker: OneWorker, tasks: list[Contract]) -> Batch:
    """Send a batch while the worker stands still; then it fetches all at once."""
    worker.freeze()
    with client.batch() as batch:
        batch.send_many(tasks)
    worker.thaw()
    return batch


def gates(
    kind: str, folder: Path, prefix: str, count: int, *, is_open: Callable[[int], bool]
) -> list[Contract]:
    """Return so many tasks of `Gate` or `Hold`, the gates of which are open or not by their numbers."""
    import pond_kinds

    for n in filter(is_open, range(count)):
        (folder / f"{prefix}{n}.open").touch()
    return [getattr(pond_kinds, kind)(folder=str(folder), name=f"{prefix}{n}") for n in range(count)]


def redelivered(client: Client) -> int:
    """Return how many deliveries were counted so far."""
    return read_depth(client.store, "default").counters.get("redelivered", 0)


def runs(folder: Path) -> Counter[str]:
    """Count how often each gate was passed."""
    return Counter({file.stem: len(file.read_text().splitlines()) for file in folder.glob("g*.done")})


def teach(client: Client, tasks: list[Contract]) -> None:
    """Run short tasks until the worker knows that their kind is short."""
    with client.batch() as batch:
        batch.send_many(tasks)
    assert batch.wait(PATIENCE).succeeded == len(tasks)


def test_nothing_counts_as_running_once_thousands_of_short_tasks_have_ended(
    client: Client, worker: OneWorker, settings: Settings
) -> None:
    """A task whose answer is read before its child's receipt of the chunk is not counted as running."""
    from pond_kinds import Whisper

    teach(client, [Whisper(aloud="", secret="s") for _ in range(3_000)])
    worker.assert_at_rest()
    inspect = celery_app(settings).control.inspect(timeout=10, limit=1)
    assert [*inspect.active().values(), *inspect.reserved().values()] == [[], []]


def test_those_beside_one_that_turns_out_long_end_before_it(
    client: Client, worker: OneWorker, tmp_path: Path, eventually: Eventually
) -> None:
    """While a long task holds its child, the tasks before and behind it in the chunk end, each once."""
    teach(client, gates("Gate", tmp_path, "taught", 20, is_open=lambda _: True))
    batch = together(client, worker, gates("Gate", tmp_path, "g", 16, is_open=lambda n: n != 2))
    eventually(lambda: batch.summary().succeeded == 15)
    assert (tmp_path / "g2.started").exists()
    assert runs(tmp_path) == {f"g{n}": 1 for n in range(16) if n != 2}
    (tmp_path / "g2.open").touch()
    assert batch.wait(PATIENCE).succeeded == 16
    assert runs(tmp_path) == {f"g{n}": 1 for n in range(16)}
    assert redelivered(client) == 0


def test_those_behind_long_ones_go_back_when_the_worker_is_stopped(
    client: Client, worker: OneWorker, settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    """Tasks behind long ones in a chunk are released while the long ones run; no delivery counts."""
    teach(client, gates("Hold", tmp_path, "taught", 20, is_open=lambda _: True))
    batch = together(client, worker, gates("Hold", tmp_path, "g", 16, is_open=lambda n: n < 2))
    eventually(lambda: len(list(tmp_path.glob("g*.started"))) == 4)
    worker.process.terminate()
    eventually(lambda: read_depth(client.store, "default").in_flight == 2)
    assert 0 < read_depth(client.store, "default").ready == 14 - batch.summary().succeeded
    assert worker.process.poll() is None
    for n in range(2, 16):
        (tmp_path / f"g{n}.open").touch()
    assert worker.process.wait(60) == 0
    assert redelivered(client) == 0
    with workers(settings, tmp_path):
        assert batch.wait(PATIENCE).succeeded == 16
    assert runs(tmp_path) == {f"g{n}": 1 for n in range(16)}


def test_only_the_one_that_kills_its_child_is_delivered_again(
    client: Client, settings: Settings, file: Path, tmp_path: Path
) -> None:
    """Of a chunk, tasks that ended before the child's death count; those behind it start elsewhere, once."""
    from broker_kinds import Act

    def act(name: str, what: Literal["note", "kill"] = "note") -> Contract:
        return Act(file=str(file), name=name, what=what)

    tasks = [act(f"a{n}", "kill" if n == 2 else "note") for n in range(16)]
    with workers(settings, tmp_path) as (worker,):
        teach(client, [act(f"taught{n}") for n in range(20)])
        summary = together(client, worker, tasks).wait(PATIENCE)
    assert (summary.succeeded, summary.failed) == (15, 1)
    ran = Counter(read_names(file))
    assert {name: ran[name] for name in ran if name[0] == "a" and name != "a2"} == {
        f"a{n}": 1 for n in range(16) if n != 2
    }
    assert redelivered(client) == ran["a2"] - 1


@pytest.mark.slow
def test_each_runs_once_however_often_tasks_turn_out_long_and_children_are_replaced(
    settings: Settings, client: Client, file: Path, tmp_path: Path
) -> None:
    """Each task runs once, though one in forty is long and moves those behind it, and children end often."""
    from broker_kinds import Act

    before = redelivered(client)
    pool = settings.table.pools["default"].model_copy(update={"max_tasks_per_child": 20})
    table = settings.table.model_copy(update={"pools": {"default": pool}})
    tasks = [Act(file=str(file), name=f"n{n}", seconds=0.0 if n % 40 else 0.12) for n in range(1_200)]
    with workers(settings.model_copy(update={"table": table}), tmp_path):
        with client.batch() as batch:
            batch.send_many(tasks)
        assert batch.wait(PATIENCE).succeeded == len(tasks)
    assert Counter(read_names(file)) == {task.name: 1 for task in tasks}
    assert redelivered(client) == before
