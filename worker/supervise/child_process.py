"""One process of a supervisor: start it, signal it, reap it, back off before a restart."""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from millpond.worker.supervise.ready_pipe import start_with_ready_pipe

#: A process that ends sooner than this counts as an early death, and its restart waits.
STEADY_SECONDS = 10.0
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0


@dataclass
class ChildProcess:
    """Process `number` of a pool, through all its restarts.

    `command(ready_fd)` returns its command line; the process writes to `ready_fd` once it is ready.
    """

    pool: str
    number: int
    command: Callable[[int], list[str]]
    process: "subprocess.Popen[bytes] | None" = None
    #: The read end of the pipe on which the process reports that it is ready; None afterwards.
    ready_pipe: int | None = None
    ready: bool = False
    started_at: float = 0.0
    #: The time of the next start (monotonic seconds); None if it runs or must not run.
    restart_at: float | None = None
    early_deaths: int = 0

    @property
    def name(self) -> str:
        """The name of the process in a log line."""
        return f"pool={self.pool} process={self.number}"

    def start(self) -> int:
        """Start the process in a session of its own and return its id. Raises `OSError`."""
        self.started_at, self.restart_at = monotonic(), None
        self.process, self.ready_pipe = start_with_ready_pipe(self.command)
        self.ready = False
        return self.process.pid

    def read_ready(self) -> bool:
        """Read the pipe and close it. Return True if the process wrote to it, False if it closed its end."""
        if self.ready_pipe is None:
            return self.ready
        self.ready = bool(os.read(self.ready_pipe, 64))
        os.close(self.ready_pipe)
        self.ready_pipe = None
        return self.ready

    def terminate(self) -> None:
        """Send SIGTERM: the process ends after its running tasks."""
        if self.process is not None:
            # Not Popen.terminate(), which may reap the process: the supervisor would not learn of its end.
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and its children (its process group) at once."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Reap the process, which has ended, kill the rest of its group, and return the exit code."""
        assert self.process is not None
        # Until it is reaped, its id cannot belong to another process.
        self.kill()
        code = self.process.wait()
        self.process = None
        if self.ready_pipe is not None:
            os.close(self.ready_pipe)
            self.ready_pipe = None
        return code

    def plan_restart(self, *, requested: bool) -> float:
        """Set the time of the next start and return the wait until then in seconds.

        There is no wait after a `requested` end, or a life of `STEADY_SECONDS`. Each further early death in a
        row doubles the wait.
        """
        was_steady = requested or monotonic() - self.started_at >= STEADY_SECONDS
        self.early_deaths = 0 if was_steady else self.early_deaths + 1
        doubled = _FIRST_WAIT_SECONDS * 2.0 ** max(0, self.early_deaths - 1)
        wait = min(_LONGEST_WAIT_SECONDS, doubled) if self.early_deaths else 0.0
        self.restart_at = monotonic() + wait
        return wait


def describe_exit(code: int) -> str:
    """Return an exit code of `Popen` in words, which follow the name of the process in a log line."""
    if code < 0:
        hint = " (by the kernel, if memory is short)" if code == -signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"
    return "ended by itself" if code == 0 else f"ended with exit code {code}"
