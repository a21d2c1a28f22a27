"""Put load on a bounded queue with many producers, and account for every task."""

import subprocess
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from millpond.broker import limits
from millpond.broker.connection import Store, connect
from millpond.broker.inspect import dead_letters
from millpond.broker.inspect import depth as inspect_depth
from millpond.tasks.settings import Settings
from millpond.worker.local.embedded import Embedded, embedded
from tests.harness.kinds_path import add_kinds_to_path
from tests.harness.waiting import wait_until

ROOT = Path(__file__).parents[3]
QUEUE = "default"


@dataclass(frozen=True)
class Pressed:
    """The figures of a load. `lost` and `twice` count tasks; `waits` are the seconds of each accepted send.

    `calls` has for each sender that waited in the line of admission when it began to send, and when the
    server gave it its grant, by the server's clock. The rest of `waits` is the sender's own time on this
    machine.
    """

    policy: str
    accepted: int
    refused: int
    ran_here: int
    shed: int
    lost: int
    twice: int
    high_water: int
    per_second: float
    commands_per_second: float
    waits: list[float] = field(repr=False)
    calls: list[tuple[float, float]] = field(repr=False)
    producers: int

    @property
    def fair_wait(self) -> float:
        """The wait of a send, in seconds, if all producers take turns at the rate of the grants."""
        called = sorted(at for _, at in self.calls)
        if len(called) < 2:
            return self.producers / self.per_second
        return self.producers * (called[-1] - called[0]) / (len(called) - 1)

    @property
    def longest_in_line(self) -> float:
        """The longest time from the beginning of a send to its grant, in seconds."""
        return max((called - began for began, called in self.calls), default=0.0)

    @property
    def most_called_before(self) -> int:
        """The most grants that others got while one sender waited in the line."""
        times = sorted(called for _, called in self.calls)
        return max(
            (bisect_left(times, at) - bisect_right(times, began) for began, at in self.calls), default=0
        )

    def wait(self, percentile: int) -> float:
        """Return a percentile of the waits in seconds."""
        return quantiles(self.waits, n=100)[percentile - 1] if len(self.waits) > 1 else 0.0


@contextmanager
def pool(
    folder: Path, *, bound: int | str, slots: int = 5, pace: float = 0.02, prefetch: int = 5
) -> Iterator[Embedded]:
    """Run a pool whose tasks take `pace` seconds, on a queue with this bound.

    Messages that a process has prefetched and returns, because it was slow, pass the bound. With a `prefetch`
    of 0 there are none, so the high water is that of the senders alone.
    """
    (folder / "pace").write_text(str(pace))
    add_kinds_to_path()
    table: Any = {
        "queues": {QUEUE: {"bound": bound}},
        "pools": {QUEUE: {"concurrency": slots, "prefetch": prefetch}},
    }
    with embedded(Settings(kinds=("load_kinds",), table=table, drain_seconds=5), pools=[QUEUE]) as running:
        with closing(connect(running.url)) as store:
            limits.change_limits(store, QUEUE, dead_bound=10_000_000)  # shed tasks are counted at the end
        yield running


@contextmanager
def producers(
    url: str, folder: Path, policies: Sequence[str], *, threads: int, seconds: float
) -> Iterator[list[Any]]:
    """Run a producer process for each policy. At the end of the block, wait until they have ended."""
    words = [sys.executable, "-m", "tests.scenarios.load.producing", url, str(folder)]
    started = [
        subprocess.Popen([*words, policy, str(seconds), str(threads)], cwd=ROOT) for policy in policies
    ]
    try:
        yield started
        for process in started:
            if process.wait(seconds + 120) > 0:
                raise RuntimeError(f"a producer ended with {process.returncode}")
    finally:
        for process in started:
            process.kill()
            process.wait()


def press(
    running: Embedded, folder: Path, policies: Sequence[str], *, threads: int, seconds: float
) -> Pressed:
    """Run producers for so many seconds, wait until all tasks have ended, and return the figures."""
    store = connect(running.url)
    before = commands(store)
    with producers(running.url, folder, policies, threads=threads, seconds=seconds):
        pass
    asked = commands(store) - before
    wait_until_done(store)
    after, shed = (
        inspect_depth.read_depth(store, QUEUE).counters,
        {letter.task_id for letter in dead_letters.read_dead_letters(store, QUEUE)},
    )
    store.close()
    sent, ran = _lines(folder, "sent-*"), [line[0] for line in _lines(folder, "ran-*")]
    taken = [line for line in sent if line[1] == "taken"]
    answered = [float(line[2]) for line in sent]
    took = max(answered) - min(answered)
    accepted = {line[0] for line in sent if line[1] != "refused"}
    return Pressed(
        policy=" and ".join(dict.fromkeys(policies)),
        accepted=len(accepted),
        refused=sum(line[1] == "refused" for line in sent),
        ran_here=sum(line[1] == "ran" for line in sent),
        shed=len(shed),
        lost=len(accepted - set(ran) - shed),
        twice=len(ran) - len(set(ran)),
        high_water=after["high_water"],
        per_second=len(accepted) / took,
        commands_per_second=asked / took,
        waits=[float(line[3]) for line in taken],
        calls=[(float(line[2]) - float(line[3]), float(line[4])) for line in taken if line[4] != "-"],
        producers=len(policies) * threads,
    )


def commands(store: Store) -> int:
    """Return the number of commands that clients sent to the server, without those that scripts called."""
    stats = store.client.info("commandstats")
    return sum(
        stats[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "blpop") if f"cmdstat_{name}" in stats
    )


def wait_until_done(store: Store, seconds: float = 300) -> None:
    """Wait until no task is ready, delayed or in flight."""

    def is_done() -> bool:
        depth = inspect_depth.read_depth(store, QUEUE)
        return depth.ready + depth.in_flight + depth.delayed == 0

    wait_until(is_done, seconds, "the tasks have not ended")


def _lines(folder: Path, pattern: str) -> list[list[str]]:
    return [line.split() for path in folder.glob(pattern) for line in path.read_text().splitlines()]
