"""Cut the connections of workers and end workers under load, and count the notes of their bodies."""

import time
from collections import Counter
from pathlib import Path

import pytest

from millpond import Client
from millpond.broker.connection import Store
from millpond.broker.inspect import depth as inspect_depth
from tests.harness.noted import read_names
from tests.harness.one_worker import settings_for, workers

EXECUTORS = ("prefork", "threads")


def cut(store: Store) -> None:
    """Cut every connection to the server but this one."""
    store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")


def send(client: Client, file: Path, count: int, seconds: float) -> set[str]:
    """Send bodies that hold their slot for so long; return their names."""
    wanted = [f"n{n}" for n in range(count)]
    client.send_many(("broker.act", {"file": str(file), "name": name, "seconds": seconds}) for name in wanted)
    return set(wanted)


@pytest.fixture(autouse=True)
def kinds() -> None:
    """Load the kinds of the tests, here too."""
    import broker_kinds  # noqa: F401


@pytest.mark.parametrize("executor", EXECUTORS)
def test_tasks_in_flight_run_once_after_their_workers_connections_were_cut(
    executor: str, module_url: str, module_store: Store, file: Path, tmp_path: Path, eventually
) -> None:
    """Tasks fetched before a lost connection run after it, each once, before any lease runs out."""
    pool = {"executor": executor, "concurrency": 1, "prefetch": 4}
    settings = settings_for(module_url, pool=pool, queue={"lease_seconds": 60})
    with workers(settings, tmp_path) as [worker], Client(settings=settings) as client:
        wanted = send(client, file, 6, 0.3)
        eventually(lambda: read_names(file))
        cut(module_store)
        eventually(lambda: wanted <= set(read_names(file, "end")), 20)
        eventually(lambda: inspect_depth.read_depth(module_store, "default").in_flight == 0)
        assert "Deprecat" not in worker.log  # Celery's advice would end running tasks
    assert Counter(read_names(file)) == dict.fromkeys(wanted, 1)


def test_an_answer_that_comes_while_the_connections_are_cut_is_read_to_its_end(
    module_url: str, module_store: Store, file: Path, tmp_path: Path, eventually
) -> None:
    """A child's answer is longer than a pipe holds: the part read before is not thrown away.

    Celery's event loop begins anew with a new connection, and would take the rest of an answer for the
    beginning of one: the worker ends of it, or waits for ever for bytes that no child will write.
    """
    pool = {"executor": "prefork", "concurrency": 1}
    with workers(settings_for(module_url, pool=pool), tmp_path) as [worker], Client(module_url) as client:
        for n in range(1, 6):
            client.send(("broker.act", {"file": str(file), "name": f"n{n}", "what": "shout"}))
            eventually(lambda n=n: len(read_names(file)) == n)
            for _ in range(12):
                cut(module_store)
                time.sleep(0.03)
            eventually(lambda n=n: inspect_depth.read_depth(module_store, "default").dead == n)
        assert inspect_depth.read_depth(module_store, "default").in_flight == 0
        assert worker.process.poll() is None, worker.log


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_worker_under_load_stops_when_its_slots_are_free(
    executor: str, module_url: str, module_store: Store, file: Path, tmp_path: Path, eventually
) -> None:
    """SIGTERM under load ends a worker once its tasks have ended; the rest is ready, nothing ran twice."""
    pool = {"executor": executor, "concurrency": 2, "prefetch": 8}
    settings = settings_for(module_url, pool=pool, drain_seconds=120)
    with Client(settings=settings) as client:
        wanted = send(client, file, 1500, 0.0)
        for _ in range(3):
            before = len(read_names(file))
            with workers(settings, tmp_path) as [worker]:
                eventually(lambda before=before: len(read_names(file)) > before + 20)
                asked = time.monotonic()
                assert worker.stop(130) == 0
                assert time.monotonic() - asked < 60, worker.log
            depth = inspect_depth.read_depth(module_store, "default")
            assert (depth.in_flight, depth.ready) == (0, len(wanted) - len(read_names(file)))
    assert max(Counter(read_names(file)).values()) == 1
    module_store.client.flushdb()
