"""Run an application of its own: by `millpond worker --app`, or by `celery -A` over either transport."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: The ways: kombu's transport, Millpond's under a stock worker, and `millpond worker --app`.
Way = Literal["stock", "transport", "app"]

READY = {"app": "takes messages", "transport": " ready.", "stock": " ready."}


@dataclass(frozen=True)
class Application:
    """An application whose worker runs."""

    env: Mapping[str, str]
    log_file: Path
    process: "subprocess.Popen[bytes]"

    @property
    def log(self) -> str:
        """Read what its worker has logged."""
        return self.log_file.read_text()

    def python(self, program: str, *, within_seconds: float = 120) -> str:
        """Run a program of the application's own and return what it prints."""
        command = [sys.executable, "-P", "-c", program]
        done = subprocess.run(
            command, env=dict(self.env), capture_output=True, text=True, timeout=within_seconds, check=False
        )
        assert done.returncode == 0, done.stderr + self.log
        return done.stdout


@contextmanager
def application(
    name: str,
    way: Way,
    folder: Path,
    *,
    env: Mapping[str, str],
    path: Sequence[Path],
    pool: str = "threads",
    toml: str = "",
    options: Sequence[str] = (),
    ready_seconds: float = 60,
) -> Iterator[Application]:
    """Run one worker process of an application until the block is left; it must end well.

    `path` is where its modules lie; `toml` follows the pool's table in `millpond.toml`.
    """
    log, config = folder / "log", folder / "millpond.toml"
    config.write_text(
        f'drain_seconds = 5\n[pools.default]\nexecutor = "{pool}"\nprocesses = 1\nconcurrency = 2\n{toml}'
    )
    whole = {k: v for k, v in os.environ.items() if not k.startswith("MILLPOND_")}
    whole |= {"MILLPOND_CONFIG": str(config), "PYTHONPATH": os.pathsep.join(map(str, path)), **env}
    if way == "app":
        command = ["-m", "millpond", "worker", "--app", name, "default"]
    else:
        command = ["-m", "celery", "-A", name, "worker", "-Q", "default", "-P", pool, "-c", "2", "-l", "INFO"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", *command, *options], cwd=folder, env=whole, stdout=out, stderr=out
        )
    try:
        end = time.monotonic() + ready_seconds
        while READY[way] not in log.read_text() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        yield Application(whole, log, process)
    finally:
        process.terminate()
        code = process.wait(60)
    assert code == 0, log.read_text()
