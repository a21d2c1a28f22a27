"""Probe a pool again and again until its budget is spent, and compare the probes' cost with the budget.

`python -m tests.scenarios.bottlenecks.cost [--share 0.01] [--seconds 200]`: a backlog of tasks that wait
without a shared dependency, so that each idle slot costs its whole throughput. The finding of a probe is
dropped, so that the next one begins. The rate without probes is that of the same minutes.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic, sleep

from millpond.broker.connection import Store, connect
from millpond.broker.keys import elasticity_key
from millpond.broker.stats import probing
from millpond.worker.local.valkey import run_server
from tests.harness.one_worker import settings_for, workers
from tests.scenarios.bottlenecks.case import Case
from tests.scenarios.bottlenecks.running import Feed, _succeeded, kept_nice

CASE = Case(
    "waits for something of its own", "bottleneck.sleep", ("workers",), True, fields={"seconds": 0.05}
)
STEP_SECONDS = 2.0


@dataclass
class Cost:
    """The measurements: the rates of the steps with and without a probe, and the cost as it was counted."""

    probed: list[float]
    free: list[float]
    counted_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """The rate while no probe ran."""
        return median(self.free)

    @property
    def lost(self) -> float:
        """The tasks that did not end because of probes."""
        return sum((self.rate - rate) * STEP_SECONDS for rate in self.probed)


def run(folder: Path, executor: str, share: float, seconds: float) -> Cost:
    """Run the pool for so long."""
    with ExitStack() as stack:
        own = stack.enter_context(run_server(folder / "server"))
        store = connect(own.url)
        stack.callback(store.close)
        pool = {"executor": executor, "concurrency": 8, "prefetch": 8}
        settings = settings_for(
            own.url, pool=pool, queue={"bound": 1_000_000}, kinds=("bottleneck_kinds",), probe_share=share
        )
        stack.enter_context(workers(settings, folder))
        feed = Feed(store, CASE, dict(CASE.fields))
        feed.fill()
        sleep(5)
        cost, until = Cost([], []), monotonic() + seconds
        while monotonic() < until:
            _step(store, feed, cost)
        [(_, cost.counted_seconds)] = probing.read_probe_states(store, ["default"])
        store.client.delete("default")
    return cost


def _step(store: Store, feed: Feed, cost: Cost) -> None:
    """Count the tasks that end for a while, and drop the finding of a probe."""
    feed.fill()
    [(before, _)] = probing.read_probe_states(store, ["default"])
    first, begun = _succeeded(store), monotonic()
    sleep(STEP_SECONDS)
    rate = (_succeeded(store) - first) / (monotonic() - begun)
    [(after, _)] = probing.read_probe_states(store, ["default"])
    (cost.probed if before or after else cost.free).append(rate)
    store.client.delete(elasticity_key("default", store.prefix))


def main() -> int:
    """Run both executors; the exit code is 1 if one of them lost more than its budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.01, help="the budget: a share of an hour")
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--executor", choices=("threads", "prefork"))
    asked = parser.parse_args()
    kinds = str(Path(__file__).parents[2] / "kinds")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [kinds, os.environ.get("PYTHONPATH")]))
    sys.path.append(kinds)
    worst = 0.0
    for executor in (asked.executor,) if asked.executor else ("threads", "prefork"):
        with tempfile.TemporaryDirectory(prefix="millpond-cost-") as folder, kept_nice():
            cost = run(Path(folder), executor, asked.share, asked.seconds)
        if not cost.free:
            parser.error(f"{executor}: a probe ran at every look, so no rate without one: raise --seconds")
        budget = asked.share * 3600
        worst = max(worst, cost.lost / cost.rate / budget)
        seconds, lost = len(cost.probed) * STEP_SECONDS, cost.lost / cost.rate
        print(f"{executor}: {cost.rate:.0f} tasks a second without probes, {seconds:.0f} s with probes")
        print(
            f"  lost {cost.lost:,.0f} tasks, {lost:.1f} s of the rate; counted {cost.counted_seconds:.1f} s"
        )
        print(f"  budget {budget:.0f} s an hour, {budget * cost.rate:,.0f} tasks", flush=True)
    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
