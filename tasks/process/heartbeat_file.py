"""Say how a process is, once a second, in a small file that health checks read.

The file lies under `scratch()/millpond-<user>/`, so a read-only root needs no more than its tmpfs. It is
written in place and keeps its size: a full disk does not make a process that lives look dead. It holds no
secret.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from millpond.tasks.process.paths import scratch

#: The size of a file, in bytes: a record and blanks behind it.
SIZE = 1024

#: The time between two records.
PULSE_SECONDS = 1.0

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True)
class Pulse:
    """Say how one process is; times are seconds by `now()`, which all processes of a host share.

    `service` is a pool, or `scheduler`; `of` how many processes of it there should be here. `turned_at` is
    when its loop last turned, `answered_at` when the broker last answered (None: it did not, the last time),
    `leased` whether its leases hold. `waiting_since` is since when there has been something to fetch while
    nothing was fetched or settled, and `patience_seconds` for how long that is no fault.
    """

    service: str
    number: int
    pid: int
    parent: int
    of: int = 1
    #: When the process was started, by the kernel: another with the same id is not taken for it.
    born: str = ""
    said_at: float = 0.0
    turned_at: float = 0.0
    answered_at: float | None = None
    leased: bool = False
    waiting_since: float | None = None
    patience_seconds: float = 60.0
    draining: bool = False

    @property
    def name(self) -> str:
        """Name the process in a line for a person."""
        return f"{self.service}.{self.number} (pid {self.pid})"


class PulseFile:
    """Be the file of this process; nothing is raised, for health is told at best effort."""

    def __init__(self, service: str, number: int, *, of: int = 1) -> None:
        pid = os.getpid()
        self.pulse = Pulse(service, number, pid, os.getppid(), of, born=born(pid))
        self._path = folder() / f"{service}.{number}.{pid}"
        self._descriptor = -1

    def open(self) -> None:
        """Make the file; raises `OSError` where there is no room for it, or the folder is another's."""
        made = self._path.parent
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
        if made.stat().st_uid != os.getuid():
            raise PermissionError(13, "it belongs to somebody else: set MILLPOND_SCRATCH", str(made))
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self.say(turned_at=now())  # until its loop turns, it has as long for that as between two turns

    def say(self, **facts: float | bool | None) -> None:
        """Write the record, with these facts changed."""
        self.pulse = replace(self.pulse, **facts, said_at=now())  # type: ignore[arg-type]
        if self._descriptor >= 0:
            with suppress(OSError):
                os.pwrite(self._descriptor, json.dumps(asdict(self.pulse)).encode().ljust(SIZE), 0)

    def close(self) -> None:
        """Remove the file: the process ends."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._path.unlink(missing_ok=True)


def pulses(service: str | None = None, *, pid: int | None = None) -> list[Pulse]:
    """Return the pulses of this user's processes on this host that are there: of a service, or of a process.

    `pid` may also be the supervisor's. The file of one that has gone is removed.
    """
    found = [pulse for pulse in _read() if service in (None, pulse.service)]
    return [pulse for pulse in found if pid is None or pid in (pulse.pid, pulse.parent)]


def _read() -> Iterator[Pulse]:
    with suppress(OSError):  # no folder, or one that is not for us to read: nobody is there
        if folder().stat().st_uid != os.getuid():
            return
        for path in sorted(folder().iterdir()):
            with suppress(OSError, ValueError, TypeError):
                pulse = Pulse(**json.loads(path.read_bytes()))
                if born(pulse.pid) == pulse.born:
                    yield pulse
                else:
                    path.unlink()


def folder() -> Path:
    """Return the folder of this user's pulses."""
    return scratch() / f"millpond-{os.getuid()}"


def now() -> float:
    """Return the time that pulses are told in: seconds since this machine was started."""
    return time.clock_gettime(_CLOCK)


def born(pid: int) -> str:
    """Say when a process was started, in the kernel's ticks; empty where it is gone, or nobody tells."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
