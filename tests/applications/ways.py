"""Three ways to run a user's Celery application, each in a database and a folder of its own.

- stock: a stock worker and a stock client, on kombu's Redis transport;
- transport: the same worker and the same client; the broker's URL begins with `millpond://`;
- app: `millpond worker --app`, and a stock client.

An application reads its broker from `APP_BROKER` and its results from `APP_RESULTS`, and lies in a folder on
the path.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from millpond.worker.supervise.parent_death import with_parent_death_signal
from tests.conftest import Eventually

WAYS = ("stock", "transport", "app")
ROOT = Path(__file__).parents[2]
READY = {"stock": " ready.", "transport": " ready.", "app": "takes messages"}
STOP_SECONDS = 90


@dataclass(frozen=True)
class Running:
    """A worker that runs in one of the ways: its environment, for clients, and its log."""

    way: str
    env: dict[str, str]
    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def log(self) -> str:
        """The text of its log."""
        return (self.folder / "worker.log").read_text(errors="replace")

    def run(self, *command: str, seconds: float = 240, check: bool = True) -> str:
        """Run a program of the application's own beside the worker, and return its output."""
        done = subprocess.run(
            with_parent_death_signal(command),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0 or not check, (
            f"{self.way}: {done.stdout}\n{done.stderr}\n{self.log[-6000:]}"
        )
        return done.stdout


def environment(way: str, url: str, paths: Sequence[Path], more: Mapping[str, str] = {}) -> dict[str, str]:
    """Return the environment of an application in one of the ways: only the broker's scheme differs."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MILLPOND_", "APP_", "DJANGO_"))}
    path = os.pathsep.join(map(str, [*paths, ROOT]))
    env |= {
        "APP_BROKER": url,
        "APP_RESULTS": url,
        "PYTHONPATH": path,
        "PYTHONWARNINGS": "ignore",
        "C_FORCE_ROOT": "1",
        **more,
    }
    if way == "transport":
        env["APP_BROKER"] = url.replace("redis://", "millpond://", 1)
    return env


def command(way: str, name: str, pool: str, slots: int, queues: Sequence[str], folder: Path) -> list[str]:
    """Return the command of a worker of an application; writes the pools table it needs."""
    if way != "app":
        stock = [sys.executable, "-m", "celery", "-A", name, "worker", "-l", "INFO", "-P", pool]
        return [*stock, "-c", str(slots), "-Q", ",".join(queues), "-n", "first@%h"]
    tables = "\n".join(f"[queues.{queue}]" for queue in queues)
    listed = ", ".join(f'"{queue}"' for queue in queues)
    (folder / "millpond.toml").write_text(
        f"drain_seconds = 10\n[pools.default]\nqueues = [{listed}]\n"
        f'executor = "{pool}"\nprocesses = 1\nconcurrency = {slots}\nprefetch = 2\n{tables}\n'
    )
    return [sys.executable, "-m", "millpond", "worker", "--app", name, "default"]


@contextmanager
def worker(
    way: str,
    name: str,
    url: str,
    folder: Path,
    eventually: Eventually,
    *,
    paths: Sequence[Path],
    pool: str = "prefork",
    slots: int = 2,
    queues: Sequence[str] = ("celery",),
    more: Mapping[str, str] = {},
) -> Iterator[Running]:
    """Run a worker of an application until the block is left; it must then end by itself, with 0."""
    folder.mkdir(parents=True, exist_ok=True)
    env = environment(way, url, paths, more)
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            with_parent_death_signal(
                command(way, name, pool, slots, queues, folder), on_parent_death=signal.SIGTERM
            ),
            cwd=folder,
            env={**env, "MILLPOND_CONFIG": str(folder / "millpond.toml")} if way == "app" else env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    running = Running(way, env, folder, process)
    try:
        eventually(lambda: READY[way] in running.log or process.poll() is not None, 75)
        assert process.poll() is None, running.log
        yield running
    finally:
        process.terminate()  # does nothing where the test has ended it
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            raise
