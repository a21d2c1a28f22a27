"""Tell how busy the processors of this host are, whoever keeps them so: what a body may be waiting for."""

from collections import deque
from contextlib import suppress
from pathlib import Path

#: How many looks back the share reaches; a look is taken once a second.
LOOKS = 10

#: Where `user nice system idle iowait …` stand, in ticks since the machine was started (proc(5)).
_STAT = Path("/proc/stat")
_IDLE = slice(3, 5)
_COUNTED = slice(0, 8)


class Processors:
    """Look at the processors now and then."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._looks: deque[tuple[int, int]] = deque(maxlen=LOOKS + 1)

    def busy(self) -> float:
        """Look, and return the share of their time that they were busy since some looks ago; 0: not known."""
        with suppress(OSError, ValueError):
            with self._stat.open() as file:
                ticks = [int(word) for word in file.readline().split()[1:]][_COUNTED]
            self._looks.append((sum(ticks), sum(ticks[_IDLE])))
        if len(self._looks) < 2:
            return 0.0
        (all_before, idle_before), (all_now, idle_now) = self._looks[0], self._looks[-1]
        passed = all_now - all_before
        return round(1 - (idle_now - idle_before) / passed, 3) if passed > 0 else 0.0
