"""Run one part of the embedded set-up as a child process: start it, wait until it is ready, stop it."""

import os
import selectors
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from millpond.tasks.errors import StartError
from millpond.worker.supervise.child_process import how_it_ended
from millpond.worker.supervise.parent_death import leashed
from millpond.worker.supervise.terminate import end


@dataclass(frozen=True)
class Part:
    """Be a child process with a log of its own, which announces itself by one line on a pipe."""

    name: str
    process: "subprocess.Popen[bytes]" = field(repr=False)
    log: Path
    announcing: int = field(repr=False)

    def announced(self, timeout_seconds: float) -> str:
        """Wait for the line and return it; raise `StartError` when it does not come."""
        deadline, said = monotonic() + timeout_seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.announcing, selectors.EVENT_READ)
            while not said.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - monotonic())):
                    raise StartError(
                        f"{self.name} is not ready after {timeout_seconds:.0f} s{self.last_words()}"
                    )
                more = os.read(self.announcing, 4096)
                if not more:
                    ended = how_it_ended(self.process.wait())
                    raise StartError(f"{self.name} {ended} before it was ready{self.last_words()}")
                said += more
        return said.decode().strip()

    def last_words(self) -> str:
        """Return the last line in the log that is not the supervisor's, to be put behind a reason."""
        lines = self.log.read_text(errors="replace").split("\n")
        told = (
            line.strip() for line in reversed(lines) if line.strip() and "millpond.supervisor" not in line
        )
        last = next(told, "")
        return f": {last}" if last else ""

    def stop(self, timeout_seconds: float) -> None:
        """Ask the part to end and wait; kill it at the end of the time."""
        end(self.process, within_seconds=timeout_seconds)
        os.close(self.announcing)


def launch(name: str, command: Callable[[int], list[str]], *, env: dict[str, str], log: Path) -> Part:
    """Start `command(descriptor to announce on)`, tied to this process's life, in a session of its own."""
    here, there = os.pipe()
    try:
        with log.open("wb") as sink:
            process = subprocess.Popen(
                leashed(command(there), on_parent_death=signal.SIGKILL),
                env=env,
                pass_fds=[there],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for us, who stop the parts in order
            )
    except BaseException:
        os.close(here)
        raise
    finally:
        os.close(there)
    return Part(name, process, log, here)
