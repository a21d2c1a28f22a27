"""Sample the load of this host's processors by all programs, and the CPU quota of this container.

Both tell whether handlers may be waiting for a processor.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from millpond.worker.report.thread_activity import thread_clock

#: A share covers this many samples, taken once a second.
SAMPLES = 10

_CGROUPS = Path("/sys/fs/cgroup")
_IDLE_FIELDS = slice(3, 5)
_ALL_FIELDS = slice(0, 8)


class SampledShare:
    """The share, 0 to 1, by which one count has grown in proportion to another, over the last ten samples.

    `read` returns both counts: the part, and the whole. It may raise an error where they are not known.
    """

    def __init__(self, read: Callable[[], tuple[float, float]]) -> None:
        self._read = read
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES + 1)

    def sample(self) -> float:
        """Take a sample, and return the share, 0 if it is not known."""
        with suppress(OSError, ValueError, KeyError):
            self._samples.append(self._read())
        if len(self._samples) < 2:
            return 0.0
        (part_before, whole_before), (part, whole) = self._samples[0], self._samples[-1]
        if whole <= whole_before:
            return 0.0
        return round(min(1.0, (part - part_before) / (whole - whole_before)), 3)


def read_host_ticks(stat: Path = Path("/proc/stat")) -> tuple[float, float]:
    """Return the ticks in which the processors of this host were busy, and all of their ticks.

    The first line of the file is `cpu user nice system idle iowait …`, in ticks since the machine was started
    (proc(5)).
    """
    with stat.open() as file:
        ticks = [int(word) for word in file.readline().split()[1:]][_ALL_FIELDS]
    return sum(ticks) - sum(ticks[_IDLE_FIELDS]), sum(ticks)


def read_loop_seconds() -> tuple[float, float]:
    """Return the seconds that the main thread ran, and the time. It fetches, decodes and settles messages.

    Raises `ValueError` if the kernel does not report it.
    """
    clock = thread_clock(os.getpid())
    if clock is None:
        raise ValueError("the time of a thread is not known")
    return clock.ran, time.monotonic()


def read_quota_periods() -> tuple[float, float]:
    """Return the periods in which the quota of this process's container was used up, and all periods."""
    counts = dict(line.split() for line in _quota_file().read_text().splitlines())
    return int(counts["nr_throttled"]), int(counts["nr_periods"])


def _quota_file() -> Path:
    """Return the file with the counts of this process's control group, of version 1 or 2 of cgroups."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            for folder in (_CGROUPS / (controllers and "cpu"), _CGROUPS / controllers):
                file = folder / path.lstrip("/") / "cpu.stat"
                if file.exists() and "nr_periods" in file.read_text():
                    return file
    return _CGROUPS / "cpu.stat"
