"""One service of the embedded set-up as a child process: start it, wait until it is ready, stop it."""

import os
import selectors
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from millpond.tasks.errors import StartError
from millpond.worker.supervise.child_process import describe_exit
from millpond.worker.supervise.parent_death import with_parent_death_signal
from millpond.worker.supervise.terminate import terminate


@dataclass(frozen=True)
class Service:
    """A child process with its own log. It writes one line to `ready_pipe` once it is ready."""

    name: str
    process: "subprocess.Popen[bytes]" = field(repr=False)
    log: Path
    ready_pipe: int = field(repr=False)

    def wait_until_ready(self, timeout_seconds: float) -> str:
        """Return the line that the service writes when it is ready.

        Raises `StartError` if it has not written one after `timeout_seconds`, or has ended.
        """
        deadline, line = monotonic() + timeout_seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.ready_pipe, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - monotonic())):
                    raise StartError(
                        f"{self.name} is not ready after {timeout_seconds:.0f} s{self.last_log_line()}"
                    )
                chunk = os.read(self.ready_pipe, 4096)
                if not chunk:
                    end = describe_exit(self.process.wait())
                    raise StartError(f"{self.name} {end} before it was ready{self.last_log_line()}")
                line += chunk
        return line.decode().strip()

    def last_log_line(self) -> str:
        """Return ": " and the last line of the log that is not the supervisor's, or "" if there is none."""
        for line in reversed(self.log.read_text(errors="replace").split("\n")):
            if line.strip() and "millpond.supervisor" not in line:
                return f": {line.strip()}"
        return ""

    def stop(self, timeout_seconds: float) -> None:
        """Terminate the service and wait for its end. Kill it after the time-out."""
        terminate(self.process, within_seconds=timeout_seconds)
        os.close(self.ready_pipe)


def launch_service(
    name: str, command: Callable[[int], list[str]], *, env: dict[str, str], log: Path
) -> Service:
    """Start the process of a service in its own session. The kernel kills it if this process is killed.

    `command(ready_fd)` returns its command line; it writes a line to `ready_fd` once it is ready.
    """
    read_end, write_end = os.pipe()
    try:
        with log.open("wb") as sink:
            process = subprocess.Popen(
                with_parent_death_signal(command(write_end), on_parent_death=signal.SIGKILL),
                env=env,
                pass_fds=[write_end],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only this process, which stops the services in order
            )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return Service(name, process, log, read_end)
