"""Hold one process of a pool for the supervisor: start, signal and bury it, know when to start it again."""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from millpond.worker.supervise.parent_death import leashed

#: A process that lives shorter than this died at once, and the next start waits.
STEADY_SECONDS = 10.0
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0


@dataclass
class Member:
    """Be the n-th process of a pool, through all its restarts; `command(ready_fd)` starts it."""

    pool: str
    number: int
    command: Callable[[int], list[str]]
    process: "subprocess.Popen[bytes] | None" = None
    #: The end of the pipe on which it says that it is ready; None once it has.
    ready_end: int | None = None
    ready: bool = False
    started_at: float = 0.0
    #: When to start it again (monotonic seconds); None: it runs, or shall not.
    restart_at: float | None = None
    died_at_once: int = 0

    @property
    def name(self) -> str:
        """Name the process in a log line."""
        return f"pool={self.pool} process={self.number}"

    def start(self) -> int:
        """Start the process, tied to this one's life, in a session of its own; return its id.

        Raises `OSError` where the system has none to give.
        """
        self.started_at, self.restart_at = monotonic(), None
        here, there = os.pipe()
        try:
            self.process = subprocess.Popen(
                leashed(self.command(there)),
                pass_fds=[there],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which can kill the group
            )
        except BaseException:
            os.close(here)
            raise
        finally:
            os.close(there)
        self.ready_end, self.ready = here, False
        return self.process.pid

    def became_ready(self) -> bool:
        """Read what the process said; False when it closed the pipe without being ready."""
        if self.ready_end is None:
            return self.ready
        self.ready = bool(os.read(self.ready_end, 64))
        os.close(self.ready_end)
        self.ready_end = None
        return self.ready

    def terminate(self) -> None:
        """Ask the process to finish what it runs and to end."""
        if self.process is not None:
            # Not by Popen, which reaps one that has just ended: nobody would learn of its end any more.
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the process and everything it started, now."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def buried(self) -> int:
        """Reap the process, which has ended, and what is left of its group; return how it ended."""
        assert self.process is not None
        # Before it is reaped, its id cannot belong to a stranger.
        self.kill()
        code = self.process.wait()
        self.process = None
        if self.ready_end is not None:
            os.close(self.ready_end)
            self.ready_end = None
        return code

    def plan_restart(self, *, asked: bool) -> float:
        """Decide when to start again and return the wait in seconds; it doubles for one that dies at once."""
        steady = asked or monotonic() - self.started_at >= STEADY_SECONDS
        self.died_at_once = 0 if steady else self.died_at_once + 1
        doubled = _FIRST_WAIT_SECONDS * 2.0 ** max(0, self.died_at_once - 1)
        wait = min(_LONGEST_WAIT_SECONDS, doubled) if self.died_at_once else 0.0
        self.restart_at = monotonic() + wait
        return wait


def how_it_ended(code: int) -> str:
    """Say in words what a return code means."""
    if code < 0:
        hint = " (by the kernel, if memory is short)" if code == -signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"
    return "ended by itself" if code == 0 else f"ended with exit code {code}"
