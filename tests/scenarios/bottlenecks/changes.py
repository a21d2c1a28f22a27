"""Change a running pool midway, again and again, and see after how many seconds the diagnosis is right.

`python -m tests.scenarios.bottlenecks.changes [--executor prefork]`: healthy, a slow dependency, healthy, a
heavier mixture, workers added, drained, resumed. The exit code is 1 if one of them took more than 30 s.
"""

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from millpond.broker import server
from millpond.broker.connection import Store, connect
from millpond.broker.control import drain
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.monitor.diagnosis import diagnose_all
from millpond.monitor.snapshot import read_snapshot
from millpond.tasks.settings import Settings
from millpond.worker.local.valkey import run_server
from tests.harness.one_worker import settings_for, workers
from tests.harness.permits import service

WITHIN_SECONDS = 30.0
#: The shortest phase, so that the next change does change something.
LEAST_SECONDS = 15.0

CALM = ("keeps up", "catching up", "bursts", "idle")


class Stream:
    """Sends tasks all the time: so many a second that ask a service, and so many that are heavy."""

    def __init__(self, store: Store, url: str) -> None:
        self._store, self._url = store, url
        self.asking, self.heavy = 30.0, 0.0
        self._stop = threading.Event()

    def run(self) -> None:
        """Send tasks until it is stopped."""
        owed = [0.0, 0.0]
        while not self._stop.wait(0.1):
            for n, (kind, fields, rate) in enumerate(
                (
                    ("bottleneck.ask", {"url": self._url}, self.asking),
                    ("bottleneck.slow_sleep", {"seconds": 0.5}, self.heavy),
                )
            ):
                owed[n] += 0.1 * rate
                many, owed[n] = int(owed[n]), owed[n] % 1
                now_ms = server.server_time_ms(self._store)
                messages = [compose(kind, fields, queue="default", sent_at_ms=now_ms) for _ in range(many)]
                publish(self._store, messages, policy="exempt")

    @contextmanager
    def running(self) -> Iterator["Stream"]:
        """Send for the length of a block."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()


@dataclass
class Phase:
    """One change, the states that are right after it, and the verdicts that were given."""

    name: str
    right: Sequence[str]
    change: Callable[[], object]
    right_after: float | None = None
    said: list[str] = field(default_factory=list)

    def watch(self, say: Callable[[], str]) -> None:
        """Change, and look every second."""
        self.change()
        begun = monotonic()
        while monotonic() - begun < WITHIN_SECONDS * 2:
            state = say()
            if not self.said or self.said[-1] != state:
                self.said.append(state)
            if self.right_after is None and state in self.right:
                self.right_after = monotonic() - begun
            if self.right_after is not None and monotonic() - begun > LEAST_SECONDS:
                return
            sleep(1)

    @property
    def is_right(self) -> bool:
        """True if the right state was said in time."""
        return self.right_after is not None and self.right_after <= WITHIN_SECONDS

    @property
    def line(self) -> str:
        """The phase in one line."""
        after = "-" if self.right_after is None else f"{self.right_after:.0f} s"
        return f"{'right' if self.is_right else 'late':6} {self.name:36} {after:>5}  {' > '.join(self.said)}"


def run(folder: Path, executor: str, *, most: int = 99) -> list[Phase]:
    """Run the phases one after the other on a server of their own; at most so many."""
    with ExitStack() as stack:
        own = stack.enter_context(run_server(folder / "server"))
        asked = stack.enter_context(service(64, 0.05))
        store = connect(own.url)
        stack.callback(store.close)
        pool = {"executor": executor, "concurrency": 4, "prefetch": 4}
        settings = settings_for(own.url, pool=pool, queue={"bound": 1_000_000}, kinds=("bottleneck_kinds",))
        stack.enter_context(workers(settings, folder))
        stream = stack.enter_context(Stream(store, asked.url).running())

        def slow(seconds: float) -> Callable[[], None]:
            return lambda: setattr(asked, "seconds", seconds)

        def more() -> None:
            beside = folder / "more"
            beside.mkdir()
            stack.enter_context(workers(settings, beside, count=3, first=2))

        phases = [
            Phase("healthy", ("keeps up",), lambda: sleep(40)),
            Phase("the dependency is slow", ("dependency",), slow(0.4)),
            Phase("the dependency is as before", CALM, slow(0.05)),
            Phase("a heavier mixture", ("workers",), lambda: setattr(stream, "heavy", 14.0)),
            Phase("workers added", CALM, more),
            Phase("drained", ("drained",), lambda: drain.drain_pool(store, "default")),
            Phase("resumed", CALM, lambda: drain.resume_pool(store, "default")),
        ]
        for phase in phases[:most]:
            phase.watch(lambda: _state(store, settings))
            print(phase.line, flush=True)
        return phases[:most]


def _state(store: Store, settings: Settings) -> str:
    found = diagnose_all(store, read_snapshot(store, settings.table))
    return next(each.state for each in found if each.pool == "default")


def main() -> int:
    """Run the phases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=("threads", "prefork"), default="threads")
    asked = parser.parse_args()
    kinds = str(Path(__file__).parents[2] / "kinds")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [kinds, os.environ.get("PYTHONPATH")]))
    sys.path.append(kinds)
    with tempfile.TemporaryDirectory(prefix="millpond-changes-") as folder:
        phases = run(Path(folder), asked.executor)
    return 0 if all(phase.is_right for phase in phases) else 1


if __name__ == "__main__":
    sys.exit(main())
