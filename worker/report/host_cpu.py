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


class HostCpu:
    """Samples how busy the processors of this host are."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES + 1)

    def sample_busy_share(self) -> float:
        """Take a sample, and return the share of time in which the processors were busy, 0 to 1.

        It covers the last ten samples. It is 0 if it is not known.
        """
        with suppress(OSError, ValueError):
            with self._stat.open() as file:
                ticks = [int(word) for word in file.readline().split()[1:]][_ALL_FIELDS]
            self._samples.append((sum(ticks), sum(ticks[_IDLE_FIELDS])))
        if len(self._samples) < 2:
            return 0.0
        (all_before, idle_before), (all_now, idle_now) = self._samples[0], self._samples[-1]
        all_ticks = all_now - all_before
        return round(1 - (idle_now - idle_before) / all_ticks, 3) if all_ticks > 0 else 0.0


class LoopCpu:
    """Samples the main thread of this process, which fetches, decodes and settles messages."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES + 1)

    def sample_busy_share(self) -> float:
        """Take a sample, and return the share of time in which the thread was on a processor.

        It covers the last ten samples. It is 0 if it is not known.
        """
        if (clock := thread_clock(os.getpid())) is not None:
            self._samples.append((time.monotonic(), clock.ran))
        if len(self._samples) < 2:
            return 0.0
        (began, used_before), (now, used) = self._samples[0], self._samples[-1]
        return round(min(1.0, (used - used_before) / (now - began)), 3) if now > began else 0.0


class CpuQuota:
    """Samples how often the quota of this process's container holds it back."""

    def __init__(self, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc, self._root = proc, root
        self._samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES + 1)

    def sample_throttled_share(self) -> float:
        """Take a sample, and return the share of periods that used up the quota, 0 to 1.

        It covers the last ten samples. It is 0 if it is not known.
        """
        with suppress(OSError, ValueError, KeyError):
            counts = dict(line.split() for line in self._counts_file().read_text().splitlines())
            self._samples.append((int(counts["nr_periods"]), int(counts["nr_throttled"])))
        if len(self._samples) < 2:
            return 0.0
        (periods_before, throttled_before), (periods_now, throttled_now) = self._samples[0], self._samples[-1]
        periods = periods_now - periods_before
        return round((throttled_now - throttled_before) / periods, 3) if periods > 0 else 0.0

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
