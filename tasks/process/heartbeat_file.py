"""Write and read heartbeat files. Each process writes its state there once a second, for health checks.

The file is in this user's folder below the scratch folder, so a container with a read-only root file system
needs only its tmpfs. It is overwritten in place and keeps its size, so a living process does not look dead
when the disk is full. It holds no secret.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from json import dumps, loads
from pathlib import Path

from millpond.tasks.process.paths import is_own_folder, open_private_scratch, private_scratch_folder
from millpond.tasks.process.process_namespace import ANY, ProcessNamespace

#: The size of a file in bytes: a record, padded with blanks.
SIZE = 1024

#: The time between two heartbeats.
HEARTBEAT_SECONDS = 1.0

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True)
class ProcessState:
    """The state of one process. Times are seconds by `boot_clock()`, which all processes of a host share.

    `service` is a pool, or `scheduler`. `number` is the number of the process among the service's processes
    on this host, and `expected` is how many of these there should be. `parent` is the supervisor's pid.
    """

    service: str
    number: int
    pid: int
    parent: int
    expected: int = 1
    #: `start_time` of the process, which differs for a later process with the same pid.
    started: str = ""
    written_at: float = 0.0
    #: The time of the event loop's last turn.
    loop_at: float = 0.0
    #: The time of the broker's last reply; 0 if the last request failed, None before the first one.
    broker_answered_at: float | None = None
    #: True if all leases of the process hold.
    has_lease: bool = False
    #: Since when messages are fetchable and none was fetched or settled; None if that is not so.
    stalled_since: float | None = None
    #: The longest time of that before it is a fault.
    stall_limit_seconds: float = 60.0
    draining: bool = False
    #: The hashes of its broker and key prefix (`ProcessNamespace`); "" in the file of an older version.
    broker: str = ""
    key_prefix: str = ""

    @property
    def name(self) -> str:
        """The name of the process in a line for people."""
        return f"{self.service}.{self.number} (pid {self.pid})"


class HeartbeatFile:
    """The heartbeat file of this process. Only `open` raises errors of the file system."""

    def __init__(
        self,
        service: str,
        number: int,
        *,
        expected: int = 1,
        namespace: ProcessNamespace = ANY,
    ) -> None:
        pid = os.getpid()
        self.heartbeat = ProcessState(
            service,
            number,
            pid,
            os.getppid(),
            expected,
            started=start_time(pid),
            broker=namespace.broker,
            key_prefix=namespace.key_prefix,
        )
        self._path = private_scratch_folder() / f"{service}.{number}.{pid}"
        self._descriptor = -1

    def open(self) -> None:
        """Create the file and write the first heartbeat.

        Raises `OSError`, as when the folder is a link or belongs to another user.
        """
        folder, flags = open_private_scratch(), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._path.name, flags, 0o600, dir_fd=folder)
        finally:
            os.close(folder)
        self.write(loop_at=boot_clock())  # so that the process is live before its loop begins

    def write(self, **changes: float | bool | None) -> None:
        """Change these fields of the heartbeat, set its `written_at`, and write it. No error is raised."""
        self.heartbeat = replace(self.heartbeat, **changes, written_at=boot_clock())  # type: ignore[arg-type]
        if self._descriptor >= 0:
            with suppress(OSError):
                os.pwrite(self._descriptor, dumps(asdict(self.heartbeat)).encode().ljust(SIZE), 0)

    def remove(self) -> None:
        """Close the file and remove it, so that the process is no longer listed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._path.unlink(missing_ok=True)


def read_heartbeats(
    service: str | None = None, *, pid: int | None = None, namespaces: Sequence[ProcessNamespace] = (ANY,)
) -> list[ProcessState]:
    """Return the heartbeats of this user's living processes on this host. Remove the files of dead ones.

    `service` selects the processes of a service. `pid` selects one process, or all of one supervisor.
    `namespaces` select those of brokers and key prefixes.
    """
    return [
        process
        for process in _living_heartbeats()
        if service in (None, process.service)
        and (pid is None or pid in (process.pid, process.parent))
        and any(namespace.includes(process.broker, process.key_prefix) for namespace in namespaces)
    ]


def _living_heartbeats() -> Iterator[ProcessState]:
    """Yield the heartbeats of living processes, and remove the files of dead ones."""
    with suppress(OSError):  # without a folder, or without access to it, there is no process
        if not is_own_folder(private_scratch_folder()):
            return
        for path in sorted(private_scratch_folder().iterdir()):
            with suppress(OSError, ValueError, TypeError):
                heartbeat = ProcessState(**loads(path.read_bytes()))
                if start_time(heartbeat.pid) == heartbeat.started:
                    yield heartbeat
                else:
                    path.unlink()


def boot_clock() -> float:
    """Return the seconds since this machine was started, the clock of all heartbeats."""
    return time.clock_gettime(_CLOCK)


def start_time(pid: int) -> str:
    """Return the start of a process, in clock ticks since the start of the machine; "" if it is gone.

    A later process with the same id has another start, so a file of a process that has ended is recognised.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
