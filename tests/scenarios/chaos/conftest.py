"""Fixtures for the tests of windows: a database, and processes that are killed in a window."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from millpond.broker.connection import Store, connect

ROOT = Path(__file__).parents[3]


@dataclass
class Bench:
    """The workers and producers of one transport, and the ledger of their runs."""

    transport: str
    store: Store
    ledger_url: str
    env: dict[str, str]
    folder: Path
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start_worker(self, window: str = "") -> "subprocess.Popen[bytes]":
        """Start a worker process with one slot. With a window it is killed there."""
        name = f"tests.scenarios.chaos.faulty:{self.transport}"
        command = [sys.executable, "-m", "celery", "-A", name, "worker", "-P", "threads", "-c", "1"]
        return self._start(
            [*command, "-Q", "chaos", "-l", "INFO", "--without-gossip", "--without-mingle"], window
        )

    def run_until_killed(self, window: str) -> None:
        """Run a worker until it is killed in the window."""
        assert self.start_worker(window).wait(60) == -signal.SIGKILL

    def send(self, id: str, window: str = "", *, retries: int = 0) -> int:
        """Run a producer that sends one task, and return its exit code."""
        command = [sys.executable, "-m", "tests.scenarios.chaos.faulty", self.transport, id, str(retries)]
        return self._start(command, window).wait(60)

    def runs(self, how: str = "ok") -> list[tuple[str, int]]:
        """Return the id and the attempt of each run that ended as `how` says (`ok`, `retry`), in order."""
        from tests.scenarios.chaos import ledger

        events = ledger.read(self.ledger_url)
        return [(e["id"], e["attempt"]) for e in events if e["event"] == "ended" and e["how"] == how]

    def _start(self, command: list[str], window: str) -> "subprocess.Popen[bytes]":
        env = {**self.env, "CHAOS_WINDOW": window, "CHAOS_ONCE": str(self.folder / "died")}
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def close(self) -> None:
        """Terminate the processes that still run, and kill them after 20 seconds."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


@pytest.fixture
def bench(url: str, tmp_path: Path) -> Iterator[Callable[[str], Bench]]:
    """Return a function that makes the bench of a transport. Its broker and its ledger are one database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        from tests.scenarios.chaos.fleet import environment_for

        made: list[Bench] = []

        def make(transport: str, **settings: Any) -> Bench:
            env = environment_for(url, url, **settings)
            made.append(Bench(transport, connect(url), url, {**os.environ, **env}, tmp_path))
            return made[-1]

        yield make
        for each in made:
            each.close()
            each.store.close()
