"""`millpond up` as a person runs it: what it says, how it stops, and what it leaves."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from millpond.broker.server import is_reachable
from millpond.tasks.process.running_up import nearby
from millpond.tasks.settings import Settings
from millpond.worker.local.embedded import embedded

Eventually = Callable[..., Any]
Alive = Callable[[list[psutil.Process]], list[psutil.Process]]
COMMAND = [sys.executable, "-c", "import sys, millpond; sys.exit(millpond.main())", "up"]


class Up:
    """A running `millpond up`."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.process = subprocess.Popen(
            [*COMMAND, "--data", str(data), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a Ctrl-C here must not end pytest
        )

    def read_until(self, words: str) -> str:
        said = ""
        assert self.process.stdout is not None
        while words not in said:
            line = self.process.stdout.readline()
            if not line:
                pytest.fail(f"it ended without saying {words!r}: {said}")
            said += line
        return said

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def rest(self) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start `millpond up` in a folder of the test; what is left of it at the end is killed."""
    started: list[Up] = []

    def start(name: str, *arguments: str) -> Up:
        started.append(Up(tmp_path / name, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def test_interrupt_stops_everything_in_order(up: Callable[..., Up], alive: Alive) -> None:
    """It says what runs where; after Ctrl-C nothing of it runs, and the exit code is 0."""
    running = up("data", "--pool", "default", "--pool", "files")
    said = running.read_until("Ctrl-C stops")
    assert re.search(r"broker  redis://:\*\*\*@127\.0\.0\.1:\d+/0, private", said)
    assert re.search(r"pool    default: 5 slots \(1 x 5 threads\), queues default", said)
    assert re.search(r"flower  http://127\.0\.0\.1:\d+/", said)
    family = running.family()
    names = " ".join(" ".join(each.cmdline()) for each in family)
    assert all(
        part in names
        for part in (
            "valkey-server",
            "millpond.worker.supervise.supervisor",
            "millpond.worker.process",
            "flower",
        )
    )
    running.process.send_signal(signal.SIGINT)
    code, said = running.rest()
    assert (code, "Stopping: what runs has 30 s to finish" in said, "Stopped." in said) == (0, True, True)
    assert not alive(family)


def test_two_run_side_by_side_and_no_two_in_one_folder(up: Callable[..., Up]) -> None:
    """Each has a port and a folder of its own; a second one in the same folder is refused in one line."""
    first, second = up("a", "--pool", "default", "--no-flower"), up("b", "--pool", "default", "--no-flower")
    first.read_until("Ctrl-C stops")
    second.read_until("Ctrl-C stops")
    found = [each for up in (first, second) if (each := nearby(up.data))]
    assert len({each.broker_url for each in found}) == 2
    assert all(is_reachable(each.broker_url) for each in found)
    third = up("a")
    code, said = third.rest()
    assert code == 1
    assert "another millpond up runs in" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_killed_one_leaves_nothing_behind(
    up: Callable[..., Up], eventually: Eventually, alive: Alive
) -> None:
    """Not even SIGKILL leaves a process of it, and the next one starts in the same folder."""
    running = up("data", "--pool", "files")
    running.read_until("Ctrl-C stops")
    family = running.family()
    assert len(family) >= 5
    running.process.kill()
    running.process.wait()
    eventually(lambda: not alive(family))
    assert nearby(running.data) is None
    with embedded(Settings(), pools=[], data_dir=running.data) as pond:
        assert is_reachable(pond.url)
