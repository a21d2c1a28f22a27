"""The supervisor, with real workers: number them, drain, keep the deadline, leave nothing behind."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from millpond.broker.connection import connect
from millpond.broker.inspect.depth import read_depth
from millpond.broker.stats import heartbeats
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from tests.conftest import Alive, Eventually
from tests.harness.gates import gate
from tests.harness.millpond_command import run_millpond
from tests.harness.supervisor_process import start_supervisor


@dataclass
class Supervised:
    """A running supervisor, and the acts of a test on it."""

    url: str
    folder: Path
    eventually: Eventually
    process: "subprocess.Popen[bytes]" = field(repr=False)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def gate(self, name: str) -> int:
        """Send a task that waits for its gate; return the process id of the worker that runs it."""
        with Client(self.url) as client:
            client.send(gate(self.folder, name))
        started = self.folder / f"{name}.started"
        return int(self.eventually(lambda: started.exists() and started.read_text()))

    def open(self, name: str) -> None:
        (self.folder / f"{name}.open").touch()

    def done(self, name: str) -> bool:
        return (self.folder / f"{name}.done").exists()

    def ended(self, within_seconds: float) -> int:
        return self.process.wait(within_seconds * 4)  # a busy machine takes its time


@pytest.fixture
def supervised(url: str, tmp_path: Path, eventually: Eventually) -> Iterator[Callable[..., Supervised]]:
    """Start supervisors of the pool `default`, ready; the rest of them is killed at the end.

    They have so long to drain that no process is killed because the machine is busy.
    """
    started: list[Supervised] = []

    def start(*, drain_seconds: float = 120, **pool: Any) -> Supervised:
        table = {"pools": {"default": {"concurrency": 2, **pool}}}
        chosen = Settings(broker_url=url, kinds=("pond_kinds",), drain_seconds=drain_seconds, table=table)
        running = Supervised(url, tmp_path, eventually, start_supervisor(chosen, tmp_path))
        started.append(running)
        return running

    yield start
    for running in started:
        if running.process.poll() is None:
            for each in running.family():
                each.kill()
            running.process.kill()
            running.process.wait()


def test_two_on_one_host_have_processes_of_different_names(
    supervised: Callable[..., Supervised], eventually: Eventually
) -> None:
    """The processes of every supervisor are seen; numbers are free again as theirs ends."""
    first = supervised(processes=2)
    supervised()
    with closing(connect(first.url)) as store:

        def numbers() -> set[str]:
            return {report.name.partition("@")[0] for report in heartbeats.read_processes(store)}

        eventually(lambda: numbers() == {"default.1", "default.2", "default.3"})
        first.process.terminate()
        assert first.ended(within_seconds=30) == 0, first.log()
        supervised()
        eventually(lambda: numbers() == {"default.1", "default.3"})


def test_a_module_that_cannot_be_imported_is_said_once(url: str, tmp_path: Path) -> None:
    """`millpond worker` ends with 2, as for a missing module, and one line with the fault."""
    tmp_path.joinpath("broken_kinds.py").write_text("import nowhere_at_all\n")
    chosen = Settings(broker_url=url, kinds=("broken_kinds",), table={"pools": {"default": {}}})
    ended = run_millpond(chosen, "worker", "default", folder=tmp_path)
    assert (ended.returncode, ended.stderr.count(" started")) == (2, 1), ended.stderr
    assert ended.stderr.count("millpond: kinds names 'broken_kinds', which cannot be imported") == 1
    assert ended.stderr.splitlines()[-1].endswith("all processes have ended")


def test_a_drain_lets_the_running_task_finish(
    supervised: Callable[..., Supervised], eventually: Eventually
) -> None:
    """After SIGTERM the running task ends, no other starts, and the exit code is 0."""
    running = supervised()
    running.gate("runs")
    running.process.terminate()
    eventually(lambda: "draining" in running.log())
    running.open("runs")
    assert running.ended(within_seconds=15) == 0
    assert running.done("runs")


def test_a_drain_gives_back_what_does_not_end(supervised: Callable[..., Supervised]) -> None:
    """At the deadline a task that still runs goes back to its queue, and the exit code is 0 all the same."""
    running = supervised(drain_seconds=0.5)
    running.gate("stuck")
    running.process.terminate()
    assert running.ended(within_seconds=10) == 0
    with closing(connect(running.url)) as store:
        counts = read_depth(store, "default")
    assert (counts.ready, counts.in_flight) == (1, 0)


def test_a_second_signal_does_not_wait(
    supervised: Callable[..., Supervised], eventually: Eventually, alive: Alive
) -> None:
    """With five minutes left to drain, a second SIGTERM ends everything in seconds."""
    running = supervised(executor="prefork", drain_seconds=300)
    running.gate("stuck")
    family = running.family()
    running.process.terminate()
    eventually(lambda: "draining" in running.log() and "Warm shutdown" in running.log())
    running.process.terminate()
    running.ended(within_seconds=10)
    assert not alive(family)


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_a_killed_supervisor_leaves_nothing_behind(
    executor: str, supervised: Callable[..., Supervised], eventually: Eventually, alive: Alive
) -> None:
    """Workers and their children, busy ones too, go with a supervisor that is killed."""
    running = supervised(executor=executor)
    running.gate("busy")
    family = running.family()
    assert len(family) == (3 if executor == "prefork" else 1)
    running.process.kill()
    running.process.wait()
    eventually(lambda: not alive(family))
