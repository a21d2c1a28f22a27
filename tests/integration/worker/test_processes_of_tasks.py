"""A child that a handler forks is not the worker, and its processes end with it."""

from collections import Counter
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from millpond.broker.inspect.depth import read_depth
from millpond.producer.client import Client
from tests.conftest import Alive, Eventually
from tests.harness.one_worker import settings_for, workers

PATIENCE = timedelta(minutes=2)
KINDS = ("forking_kinds",)


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_a_forked_child_that_comes_back_from_its_handler_runs_nothing(
    executor: str, url: str, file: Path, tmp_path: Path
) -> None:
    """A fork that returns from its handler exits (by sys.exit, 1 or 0) and runs nothing; tasks run once."""
    from forking_kinds import Fork, Note

    hows = ("exit", "raise", "return")
    pool = {"executor": executor, "concurrency": 2, "prefetch": 64}
    settings = settings_for(url, pool=pool, kinds=KINDS)
    with workers(settings, tmp_path) as [worker], Client(settings=settings) as client:
        with client.batch() as batch:
            batch.send_many(Fork(file=str(file), name=how, how=how) for how in hows)
            batch.send_many(Note(file=str(file), name=f"n{n}") for n in range(60))
        assert batch.wait(PATIENCE).succeeded == 63, worker.log
        codes = sorted(result.value for result in batch.results() if isinstance(result.value, int))
        worker.assert_at_rest()
        assert read_depth(client.store, "default").counters.get("redelivered", 0) == 0
        assert len(psutil.Process(worker.pid).children()) == (2 if executor == "prefork" else 0)
    assert Counter(file.read_text().split()) == dict.fromkeys((*hows, *(f"n{n}" for n in range(60))), 1)
    assert codes == [0, 1, 3]


@pytest.mark.parametrize("ended_by", ["hard limit", "cancel"])
def test_processes_that_a_task_started_end_with_it(
    ended_by: str, url: str, file: Path, tmp_path: Path, alive: Alive, eventually: Eventually
) -> None:
    """Children, their children, sessions of their own and daemons are killed with the task."""
    from forking_kinds import Family

    queue = {"soft_limit_seconds": 2, "hard_limit_seconds": 3} if ended_by == "hard limit" else {}
    settings = settings_for(url, pool={"executor": "prefork", "concurrency": 1}, queue=queue, kinds=KINDS)
    with workers(settings, tmp_path), Client(settings=settings) as client:
        with client.batch() as batch:
            sent = batch.send(Family(file=str(file)))
        eventually(file.exists)
        started = [psutil.Process(int(pid)) for pid in file.read_text().split()]
        try:
            assert len(alive(started)) == 4
            if ended_by == "cancel":
                client.cancel(sent.id, terminate=True)
            summary = batch.wait(PATIENCE)
            assert (summary.failed, summary.cancelled) == ((1, 0) if ended_by == "hard limit" else (0, 1))
            eventually(lambda: not alive(started))
        finally:
            for each in alive(started):
                each.kill()


def test_daemons_that_ended_leave_no_dead_process_and_no_exit_code_is_lost(
    url: str, file: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """A prefork child reaps the orphans of its tasks, and leaves a `Popen` its own child."""
    from forking_kinds import Daemon, Note

    def are_reaped() -> bool:
        client.send(Note(file=f"{file}.notes", name="between"))
        return not [pid for pid in file.read_text().split() if psutil.pid_exists(int(pid))]

    settings = settings_for(url, pool={"executor": "prefork", "concurrency": 1}, kinds=KINDS)
    with workers(settings, tmp_path), Client(settings=settings) as client:
        with client.batch() as batch:
            batch.send_many(Daemon(file=str(file)) for _ in range(3))
        assert [result.value for result in batch.results()] == [9, 9, 9]
        eventually(are_reaped, every_seconds=0.3)
