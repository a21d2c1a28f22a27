"""One service of the embedded set-up, a child process: wait until it is ready, read its log, stop it."""

import os
import selectors
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from millpond.tasks.errors import StartError
from millpond.worker.supervise.child_process import describe_exit
from millpond.worker.supervise.terminate import terminate

#: The longest time until the pools, Flower or the scheduler are ready.
READY_SECONDS = 90.0


@dataclass(frozen=True)
class Service:
    """A child process with its own log. It writes one line to a pipe once it is ready.

    `ready_pipe` is the end of the pipe to read from.
    """

    name: str
    process: "subprocess.Popen[bytes]" = field(repr=False)
    log: Path
    ready_pipe: int = field(repr=False)

    def wait_until_ready(self) -> str:
        """Return the line that the service writes when it is ready.

        Raises `StartError` if it has not written one after `READY_SECONDS`, or has ended.
        """
        deadline, line = monotonic() + READY_SECONDS, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.ready_pipe, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - monotonic())):
                    raise StartError(
                        f"{self.name} is not ready after {READY_SECONDS:.0f} s{self.last_log_line()}"
                    )
                chunk = os.read(self.ready_pipe, 4096)
                if not chunk:
                    end = describe_exit(self.process.wait())
                    raise StartError(f"{self.name} {end} before it was ready{self.last_log_line()}")
                line += chunk
        return line.decode().strip()

    def last_log_line(self) -> str:
        """Return ": " and the last line of the log that is not the supervisor's own, or "" without such."""
        line = last_line(self.log, leave_out="millpond.supervisor")
        return f": {line}" if line else ""

    def stop(self, timeout_seconds: float) -> None:
        """Terminate the service and wait for its end. Kill it after the time-out."""
        terminate(self.process, within_seconds=timeout_seconds)
        os.close(self.ready_pipe)


def last_line(log: Path, *, leave_out: str | None = None) -> str:
    """Return the last line of a log that is not empty and does not have `leave_out`, "" without such."""
    lines = (line.strip() for line in reversed(log.read_text(errors="replace").split("\n")))
    return next((line for line in lines if line and (leave_out is None or leave_out not in line)), "")
