"""Run a bottleneck: a real pool with a backlog, its verdict every two seconds, and the truth by doubling."""

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from millpond.broker.connection import Store, connect
from millpond.broker.inspect.depth import depth
from millpond.broker.message import compose
from millpond.broker.publish import publish
from millpond.monitor.diagnosis import Diagnosis, diagnose_all
from millpond.monitor.snapshot import read
from millpond.tasks.settings import Settings
from millpond.worker.local.valkey import serving
from tests.harness.one_worker import settings_for, workers
from tests.scenarios.bottlenecks.cases import Case

#: The verdict has to be right so many seconds after the onset, and the truth is measured for so many.
WITHIN_SECONDS, TRUTH_SECONDS = 60.0, 8.0
BACKLOG = 3_000


@dataclass
class Seen:
    """What was said of a case, and what was true."""

    case: Case
    right_after: float | None = None
    said: list[str] = field(default_factory=list)
    last: Diagnosis | None = None
    named: bool = True
    gain: float | None = None
    foretold: float | None = None
    measured: float | None = None

    @property
    def falsely_workers(self) -> bool:
        """True if more slots were advised at any time where they do not help."""
        return "workers" in self.said and not self.case.grows

    @property
    def right(self) -> bool:
        """True if the verdict was right in time, with the name that it has to have."""
        return self.right_after is not None and self.named and not self.falsely_workers


def run(case: Case, folder: Path, *, truth: bool = True) -> Seen:
    """Run one case on a server of its own."""
    seen = Seen(case)
    with ExitStack() as stack:
        server = stack.enter_context(serving(folder / "server"))
        given = stack.enter_context(case.around(folder))
        settings = _settings(case, server.url)
        store = connect(server.url)
        stack.callback(store.close)
        fields = {**case.fields, **case.given(given)}
        _fill(store, case, fields)
        stack.enter_context(workers(settings, folder))
        begun = monotonic()
        while monotonic() - begun < WITHIN_SECONDS:
            _fill(store, case, fields)
            [verdict] = [
                each for each in diagnose_all(store, read(store, settings.table)) if each.pool == "default"
            ]
            seen.last = verdict
            if not seen.said or seen.said[-1] != verdict.state:
                seen.said.append(verdict.state)
            if verdict.state in case.right:
                seen.right_after = monotonic() - begun
                seen.named = case.named(given) in verdict.name
                break
            sleep(2)
        if truth:
            _establish(case, seen, store, fields, stack, settings, folder)
        store.client.delete("default")
    return seen


def _establish(
    case: Case,
    seen: Seen,
    store: Store,
    fields: dict[str, Any],
    stack: ExitStack,
    settings: Settings,
    folder: Path,
) -> None:
    """Measure the throughput with the slots as they are, and with half as many again or twice as many."""
    before = _rate(store, case, fields)
    doubled = folder / "more"
    doubled.mkdir()
    stack.enter_context(workers(settings, doubled, count=1, first=2))
    sleep(2)
    after = _rate(store, case, fields)
    seen.gain = after / before if before else None
    if seen.last is not None and seen.last.state == "workers" and seen.last.elasticity is not None:
        seen.foretold, seen.measured = 2 ** min(1.0, seen.last.elasticity), seen.gain


def _rate(store: Store, case: Case, fields: dict[str, Any]) -> float:
    _fill(store, case, fields)
    first, begun = _ended(store), monotonic()
    until = begun + TRUTH_SECONDS
    while monotonic() < until:
        sleep(0.5)
        _fill(store, case, fields)
    return (_ended(store) - first) / (monotonic() - begun)


def _ended(store: Store) -> int:
    counters = depth(store, "default").counters
    return sum(counters.get(name, 0) for name in ("settled", "dead", "retried"))


def _fill(store: Store, case: Case, fields: dict[str, Any]) -> None:
    lacking = BACKLOG - depth(store, "default").ready
    if lacking > BACKLOG // 10:
        messages = [compose(case.kind, fields, queue="default", sent_at_ms=0) for _ in range(lacking)]
        publish(store, messages, policy="exempt")


def _settings(case: Case, url: str) -> Settings:
    pool = {"executor": case.executor, "concurrency": case.slots, "prefetch": case.slots}
    queue = {"bound": 1_000_000, **case.queue}
    return settings_for(url, pool=pool, queue=queue, kinds=("bottleneck_kinds",))


def line(seen: Seen) -> str:
    """Return what was seen in one line."""
    mark = "right" if seen.right else "FALSE WORKERS" if seen.falsely_workers else "wrong"
    after = "-" if seen.right_after is None else f"{seen.right_after:.0f} s"
    gain = "-" if seen.gain is None else f"x{seen.gain:.2f}"
    foretold = "" if seen.foretold is None else f" (foretold x{seen.foretold:.2f})"
    last = json.dumps(seen.last.why if seen.last else "", ensure_ascii=False)
    return (
        f"{mark:13} {seen.case.name:42} {seen.case.executor:8} {after:>5} doubling {gain}{foretold} "
        f"said {' > '.join(seen.said)}; {last}"
    )
