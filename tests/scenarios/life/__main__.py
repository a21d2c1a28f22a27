"""Print the way of a task through the code, from sending to settlement: `python -m tests.scenarios.life`.

A producer sends a batch, and then a worker process runs it, both under `sys.setprofile` in all their threads
and children. The calls of functions of our own code, without comprehensions, are counted and divided by the
number of tasks. A change of file is a call in another file than the call before it in the same thread. A file
counts if it is called for at least every second task. The worker is frozen while the batch is sent. Otherwise
it would fetch the batch in parts, and their number would depend on the load of the machine.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from millpond import Client
from millpond.tasks.settings import Settings, child_environment
from millpond.worker.local.valkey import run_server
from tests.scenarios.life.kinds import Nothing
from tests.scenarios.life.traced_worker import trace_into

#: The tasks of a batch. One more batch of as many, which is not counted, is sent first.
TASKS = 400

#: The worker is idle once it has recorded no call for this long.
QUIET_SECONDS = 0.15


@dataclass(frozen=True)
class Life:
    """The average life of a task: calls by file and function, and changes of file."""

    calls_by_function: dict[tuple[str, str], float]
    changes: float

    @property
    def calls(self) -> float:
        """The number of calls."""
        return sum(self.calls_by_function.values())

    @property
    def files(self) -> int:
        """The number of files."""
        by_file = Counter[str]()
        for (file, _name), calls in self.calls_by_function.items():
            by_file[file] += calls  # type: ignore[assignment]
        return sum(calls >= 0.5 for calls in by_file.values())


def count(executor: str, folder: Path, batches: int = 1) -> Generator[Life, None, None]:
    """Run so many batches, and yield the average life of the tasks of each. `folder` is for the traces."""
    with (
        run_server(folder / "server") as server,
        _worker(server.url, executor, folder) as (settings, trace, pid),
        Client(settings=settings) as client,
    ):
        for number in range(1 + batches):
            sent = folder / "producer.calls"
            sent.unlink(missing_ok=True)
            _until_quiet(trace)
            start = trace.stat().st_size
            os.kill(pid, signal.SIGSTOP)
            with client.batch() as batch, trace_into(sent):
                batch.send_many(Nothing(n=3) for _ in range(TASKS))
            os.kill(pid, signal.SIGCONT)
            assert batch.wait(timedelta(seconds=60)).succeeded == TASKS
            _until_quiet(trace)
            if number:
                yield _life([*_lines(sent, 0), *_lines(trace, start)])


@contextmanager
def _worker(url: str, executor: str, folder: Path) -> Iterator[tuple[Settings, Path, int]]:
    pool = {"processes": 1, "executor": executor}  # with as many slots, and as much prefetch, as by default
    settings = Settings(
        broker_url=url,
        kinds=("tests.scenarios.life.kinds",),
        table={"pools": {"default": pool}, "queues": {"default": {}}},
    )
    trace, (here, there) = folder / f"{executor}.calls", os.pipe()
    words = ["-m", "tests.scenarios.life.traced_worker", str(trace), "default", "1", "--ready-fd", str(there)]
    more = {"USE_FAST_LOCALS": "1"} if executor == "prefork" else {}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *words],
            env={**child_environment(settings), **more},
            pass_fds=[there],
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parents[3],
        )
    os.close(there)
    try:
        assert os.read(here, 64), (folder / "log").read_text()
        yield settings, trace, process.pid
    finally:
        os.close(here)
        process.terminate()
        process.wait(30)


def _until_quiet(trace: Path) -> None:
    """Wait, at most 2 s, until the trace has not grown for `QUIET_SECONDS`. Some calls come once a second."""
    size, since, ends = -1, time.monotonic(), time.monotonic() + 2
    while time.monotonic() - since < QUIET_SECONDS and time.monotonic() < ends:
        if (now := trace.stat().st_size) != size:
            size, since = now, time.monotonic()
        time.sleep(0.01)


def _lines(trace: Path, start: int) -> list[list[str]]:
    return [line.split("\t") for line in trace.read_bytes()[start:].decode().splitlines()]


def _life(lines: list[list[str]]) -> Life:
    last, changes, calls = dict[str, str](), 0, Counter[tuple[str, str]]()
    for thread, file, name in lines:
        if name.startswith("<"):  # a comprehension, which Python 3.12 does not call
            continue
        changes += thread in last and last[thread] != file
        last[thread] = file
        calls[file, name] += 1
    return Life({function: n / TASKS for function, n in calls.items()}, changes / TASKS)


def main() -> None:
    """Print the counts for both executors."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.life", description=__doc__)
    parser.add_argument("--list", action="store_true", help="print every function")
    parser.add_argument("--only", choices=("threads", "prefork"))
    asked = parser.parse_args()
    for executor in ("threads", "prefork"):
        if asked.only in (None, executor):
            with tempfile.TemporaryDirectory(prefix="millpond-life-") as folder:
                (life,) = count(executor, Path(folder))
            about = f"{life.files} files, {life.calls:.1f} calls, {life.changes:.1f} changes of file"
            print(f"{executor}: {about}")
            if asked.list:
                for (file, name), calls in sorted(life.calls_by_function.items(), key=lambda each: -each[1]):
                    print(f"  {calls:6.2f} {file:40} {name}")


if __name__ == "__main__":
    main()
