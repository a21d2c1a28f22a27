"""Run one worker process of a pool, without a supervisor."""

import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from millpond.tasks.settings import Settings, child_environment
from millpond.worker.process import process_command
from millpond.worker.supervise.parent_death import with_parent_death_signal
from tests.harness.at_rest import COUNTED_AT_THE_END, assert_at_rest

READY_SECONDS = 120


@dataclass(frozen=True)
class OneWorker:
    """A running worker process and its log."""

    process: "subprocess.Popen[bytes]"
    log_file: Path
    settings: Settings

    @property
    def pid(self) -> int:
        """Return the process id of the worker."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Return the text of its log."""
        return self.log_file.read_text()

    def freeze(self) -> None:
        """Freeze the worker and its children with SIGSTOP, as when a virtual machine is paused."""
        for each in self._family():
            each.suspend()

    def thaw(self) -> None:
        """Continue the worker and its children."""
        for each in self._family():
            each.resume()

    def kill(self) -> None:
        """Kill the worker and its children."""
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(60)

    def stop(self, within_seconds: float = 60) -> int:
        """Check that it is at rest, drain it with SIGTERM, and return the exit code."""
        self.assert_at_rest()
        self.process.terminate()
        return self.process.wait(within_seconds)

    def assert_at_rest(self) -> None:
        """Fail if the worker counts tasks as running although its queues are empty."""
        if self.process.poll() is None:
            assert_at_rest(self.settings, pids={self.pid})

    def assert_ended_at_rest(self) -> None:
        """Fail if the log of the ended worker has the line that it counts tasks although all have ended."""
        assert COUNTED_AT_THE_END not in self.log

    def _family(self) -> list[psutil.Process]:
        own = psutil.Process(self.pid)
        return [own, *own.children(recursive=True)]


def settings_for(
    url: str, *, pool: Mapping[str, Any] = {}, queue: Mapping[str, Any] = {}, **more: Any
) -> Settings:
    """Return settings with one pool and one queue, both `default`, with these fields of each.

    `more` are further settings.
    """
    table = {
        "pools": {"default": {"processes": 1, "concurrency": 4, "prefetch": 4, **pool}},
        "queues": {"default": queue},
    }
    return Settings(
        **{"broker_url": url, "kinds": ("broker_kinds",), "drain_seconds": 5, "table": table, **more}
    )


@contextmanager
def workers(
    settings: Settings,
    folder: Path,
    *,
    count: int = 1,
    first: int = 1,
    pool: str = "default",
    prefix: Sequence[str] = (),
) -> Iterator[list[OneWorker]]:
    """Run `count` worker processes of a pool for the length of a block. They are numbered from `first`.

    They start side by side, and the block is entered when all are ready. `prefix` is put before each command.
    At the end each must count no running task.
    """
    with ExitStack() as stack:
        numbers = range(first, first + count)
        started = [_start(settings, folder / f"worker-{n}.log", pool, n, prefix, stack) for n in numbers]
        for worker, ready in started:
            _must_be_ready(worker, ready)
        yield [worker for worker, _ in started]


def _start(
    settings: Settings, log_file: Path, pool: str, number: int, prefix: Sequence[str], stack: ExitStack
) -> tuple[OneWorker, int]:
    here, there = os.pipe()
    stack.callback(os.close, here)
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            with_parent_death_signal([*prefix, *process_command(pool, number, ready_fd=there)]),
            env=child_environment(settings),
            pass_fds=[there],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(there)
    worker = OneWorker(process, log_file, settings)
    stack.push(lambda error, *_: None if error else worker.assert_ended_at_rest())
    stack.callback(_end, process)
    stack.push(lambda error, *_: None if error else worker.assert_at_rest())
    return worker, here


def _must_be_ready(worker: OneWorker, ready: int) -> None:
    readable, _, _ = select.select([ready], [], [], READY_SECONDS)
    assert readable, f"not ready within {READY_SECONDS} s: {worker.log[-2000:]}"
    assert os.read(ready, 64), f"it ended before it was ready: {worker.log[-2000:]}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGCONT)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
