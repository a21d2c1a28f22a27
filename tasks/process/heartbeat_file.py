"""The heartbeat file: each process writes its state once a second into a small file, for health checks.

The file lies under `scratch()/millpond-<user>/`, so a read-only root needs only its tmpfs. It is written in
place and keeps its size, so that a full disk does not make a living process look dead. It holds no secret.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from json import dumps, loads
from pathlib import Path

from millpond.tasks.process.paths import is_own_folder, open_private_scratch, private_scratch_folder

#: The size of a file in bytes: a record, padded with blanks.
SIZE = 1024

#: The time between two records.
HEARTBEAT_SECONDS = 1.0

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True)
class ProcessState:
    """The state of one process. Times are seconds by `boot_clock()`, which all processes of a host share.

    `service` is a pool, or `scheduler`. `expected` is the number of its processes on this host. `parent` is
    the supervisor's pid. `loop_at` is the time of the loop's last turn. `broker_answered_at` is the time of
    the broker's last reply, None if the last request failed. `has_lease` is True if its leases hold. Messages
    are fetchable since `stalled_since`, and none was fetched or settled. More than `stall_limit_seconds` of
    that is a fault.
    """

    service: str
    number: int
    pid: int
    parent: int
    expected: int = 1
    #: The start of the process by the kernel: another process with the same pid has another one.
    started: str = ""
    written_at: float = 0.0
    loop_at: float = 0.0
    broker_answered_at: float | None = None
    has_lease: bool = False
    stalled_since: float | None = None
    stall_limit_seconds: float = 60.0
    draining: bool = False

    @property
    def name(self) -> str:
        """The name of the process in a line for people."""
        return f"{self.service}.{self.number} (pid {self.pid})"


class HeartbeatFile:
    """The heartbeat file of this process. A failing write raises no error."""

    def __init__(self, service: str, number: int, *, expected: int = 1) -> None:
        pid = os.getpid()
        self.heartbeat = ProcessState(service, number, pid, os.getppid(), expected, started=start_time(pid))
        self._path = heartbeat_folder() / f"{service}.{number}.{pid}"
        self._descriptor = -1

    def open(self) -> None:
        """Create the file. Raises `OSError`, as when the folder is a link or belongs to another user."""
        own, flags = open_private_scratch(), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._path.name, flags, 0o600, dir_fd=own)
        finally:
            os.close(own)
        self.write(
            loop_at=boot_clock()
        )  # until the first turn, the process counts as if its loop had just turned

    def write(self, **changes: float | bool | None) -> None:
        """Write the heartbeat with these fields changed."""
        self.heartbeat = replace(self.heartbeat, **changes, written_at=boot_clock())  # type: ignore[arg-type]
        if self._descriptor >= 0:
            with suppress(OSError):
                os.pwrite(self._descriptor, dumps(asdict(self.heartbeat)).encode().ljust(SIZE), 0)

    def close(self) -> None:
        """Remove the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._path.unlink(missing_ok=True)


def read_heartbeats(service: str | None = None, *, pid: int | None = None) -> list[ProcessState]:
    """Return the heartbeats of this user's living processes on this host. Remove the files of dead ones.

    `service` selects the processes of a service. `pid` selects one process, or all of one supervisor.
    """
    heartbeats = [each for each in _living_heartbeats() if service in (None, each.service)]
    return [each for each in heartbeats if pid is None or pid in (each.pid, each.parent)]


def _living_heartbeats() -> Iterator[ProcessState]:
    """Yield the heartbeats of living processes, and remove the files of dead ones."""
    with suppress(OSError):  # without a folder, or without access to it, there is no process
        if not is_own_folder(heartbeat_folder()):
            return
        for path in sorted(heartbeat_folder().iterdir()):
            with suppress(OSError, ValueError, TypeError):
                heartbeat = ProcessState(**loads(path.read_bytes()))
                if start_time(heartbeat.pid) == heartbeat.started:
                    yield heartbeat
                else:
                    path.unlink()


def heartbeat_folder() -> Path:
    """Return the folder of this user's heartbeat files."""
    return private_scratch_folder()


def boot_clock() -> float:
    """Return the time of heartbeats: seconds since this machine was started."""
    return time.clock_gettime(_CLOCK)


def start_time(pid: int) -> str:
    """Return when a process was started, in the kernel's ticks. Return "" if it is gone or unreadable."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
