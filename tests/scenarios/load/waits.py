"""Change the speed of a pool tenfold under a bound that is a time, and measure how long tasks wait."""

import time
from contextlib import closing
from pathlib import Path
from statistics import median

from millpond.broker import limits
from millpond.broker.connection import connect
from tests.scenarios.load.measure import QUEUE, pool, producers

BOUND_SECONDS = 6.0


def settling(folder: Path, *, phase_seconds: tuple[float, ...] = (40, 90, 40)) -> str:
    """Run fast, ten times slower, and fast again, for so many seconds each. Return the waits as text."""
    paces, marks = (0.05, 0.5, 0.05), list[tuple[float, float]]()
    with (
        pool(folder, pace=paces[0], bound=f"{BOUND_SECONDS:g}s") as running,
        closing(connect(running.url)) as store,
    ):
        total = sum(phase_seconds) + 120  # the producers' time to start
        with producers(running.url, folder, ["block"] * 4, threads=1, seconds=total) as started:
            while not any(folder.glob("sent-*")):
                time.sleep(0.1)
            for pace, seconds in zip(paces, phase_seconds, strict=True):
                (folder / "pace").write_text(str(pace))
                marks.append((time.time(), time.time() + seconds))
                time.sleep(seconds)
                print(f"bound {limits.read_limits(store, QUEUE).bound}", flush=True)
            for process in started:
                process.kill()
            limits.change_limits(store, QUEUE, paused=True)
    waits = sorted(_waits(folder))
    return "time: " + "; ".join(
        _phase(waits, 5 / pace, start, end) for pace, (start, end) in zip(paces, marks, strict=True)
    )


def _waits(folder: Path) -> list[tuple[float, float]]:
    """Return the time at which each task was accepted, and the seconds until its start."""
    started = dict(line.split() for path in folder.glob("ran-*") for line in path.read_text().splitlines())
    sent = [line.split() for path in folder.glob("sent-*") for line in path.read_text().splitlines()]
    return [(float(at), float(started[id]) - float(at)) for id, _, at, *_ in sent if id in started]


def _phase(waits: list[tuple[float, float]], speed: float, start: float, end: float) -> str:
    """Return a text about one phase: when the waits came within 30% of the bound, and the waits from then."""
    # A task that starts after the next change of speed is not of this phase.
    here = [(at, wait) for at, wait in waits if start <= at < end - 1.3 * BOUND_SECONDS]
    out = [at for at, wait in here if abs(wait - BOUND_SECONDS) > 0.3 * BOUND_SECONDS]
    settled = max(out, default=start)
    after = [wait for at, wait in here if at > settled]
    if not after:
        return f"{speed:.0f}/s: never settled"
    share = sum(abs(w - BOUND_SECONDS) <= 0.3 * BOUND_SECONDS for _, w in here) / len(here)
    return (
        f"{speed:.0f}/s: settled after {settled - start:.1f} s, then {len(after)} tasks waited "
        f"{min(after):.1f} to {max(after):.1f} s (median {median(after):.1f}); {share:.0%} of all within 30%"
    )
