"""Sample the load of this host's processors by all programs, and the CPU quota of this container.

Both tell whether handlers may be waiting for a processor.
"""

import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from millpond.worker.report.thread_activity import thread_clock

#: A share covers this many samples, taken once a second.
SAMPLES = 10

#: The first line is `cpu user nice system idle iowait …`, in ticks since the machine was started (proc(5)).
_STAT = Path("/proc/stat")
_IDLE_FIELDS = slice(3, 5)
_ALL_FIELDS = slice(0, 8)


class _Share:
    """The share, 0 to 1, by which one count has grown in proportion to another, over the last ten samples."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES + 1)

    def add_sample(self, part: float, whole: float) -> None:
        """Add a sample of the two counts."""
        self._samples.append((part, whole))

    @property
    def value(self) -> float:
        """The share, 0 if it is not known."""
        if len(self._samples) < 2:
            return 0.0
        (part_before, whole_before), (part, whole) = self._samples[0], self._samples[-1]
        if whole <= whole_before:
            return 0.0
        return round(min(1.0, (part - part_before) / (whole - whole_before)), 3)


class HostCpu:
    """Samples how busy the processors of this host are."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._share = _Share()

    def sample_busy_share(self) -> float:
        """Take a sample, and return the share of time in which the processors were busy."""
        with suppress(OSError, ValueError):
            with self._stat.open() as file:
                ticks = [int(word) for word in file.readline().split()[1:]][_ALL_FIELDS]
            self._share.add_sample(sum(ticks) - sum(ticks[_IDLE_FIELDS]), sum(ticks))
        return self._share.value


class LoopCpu:
    """Samples the main thread of this process, which fetches, decodes and settles messages."""

    def __init__(self) -> None:
        self._share = _Share()

    def sample_busy_share(self) -> float:
        """Take a sample, and return the share of time in which the thread was on a processor."""
        if (clock := thread_clock(os.getpid())) is not None:
            self._share.add_sample(clock.ran, time.monotonic())
        return self._share.value


class CpuQuota:
    """Samples how often the quota of this process's container holds it back."""

    def __init__(self, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc, self._root = proc, root
        self._share = _Share()

    def sample_throttled_share(self) -> float:
        """Take a sample, and return the share of periods that used up the quota."""
        with suppress(OSError, ValueError, KeyError):
            counts = dict(line.split() for line in self._counts_file().read_text().splitlines())
            self._share.add_sample(int(counts["nr_throttled"]), int(counts["nr_periods"]))
        return self._share.value

    def _counts_file(self) -> Path:
        """Return the file with the counts of this process's control group, of version 1 or 2 of cgroups."""
        for line in self._proc.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "" or "cpu" in controllers.split(","):
                folders = (self._root / (controllers and "cpu"), self._root / controllers)
                for folder in folders:
                    file = folder / path.lstrip("/") / "cpu.stat"
                    if file.exists() and "nr_periods" in file.read_text():
                        return file
        return self._root / "cpu.stat"
