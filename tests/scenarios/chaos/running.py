"""Run the servers, the workers and the producers of a plan, inflict its faults, and judge the run.

A run ends when no task is left, when the number of tasks has not fallen for long enough, or at its time
limit.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from millpond.broker import limits
from millpond.broker.connection import Store, connect
from millpond.broker.inspect import depth as inspect_depth
from millpond.worker.local import valkey
from tests.harness.at_rest import processes_that_count
from tests.harness.waiting import wait_until
from tests.scenarios.chaos import ledger
from tests.scenarios.chaos.faults import Faults
from tests.scenarios.chaos.fleet import POOLS, ROOT, WAYS, Fleet, environment_for
from tests.scenarios.chaos.forgetting import KINDS, Forgetting, broker_for
from tests.scenarios.chaos.forgotten import Forgotten
from tests.scenarios.chaos.guarded import GuardedBroker
from tests.scenarios.chaos.kinds import QUEUES
from tests.scenarios.chaos.left import left, waiting
from tests.scenarios.chaos.runs import tasks_of
from tests.scenarios.chaos.server import Broker
from tests.scenarios.chaos.stock import PATIENCE_SECONDS as STOCK_PATIENCE_SECONDS
from tests.scenarios.chaos.verdict import Verdict, dead_letters, judge, wrong_batches, wrong_letters

PRODUCERS = 2

#: How long the number of tasks that are left may not fall, and how long it must be 0 at the end.
PATIENCE_SECONDS = {**dict.fromkeys(WAYS, 120.0), "stock": STOCK_PATIENCE_SECONDS}
_QUIET_SECONDS = 2.0


@dataclass(frozen=True)
class Plan:
    """The plan of a run: `tasks` tasks under `faults` faults, one every `every_seconds`, on a `transport`.

    After `within_seconds` no more tasks are sent, no faults inflicted, and the run ends. With `only` all
    faults are of that kind. `folder` is for the logs and the ledger.
    """

    transport: str
    seed: int
    tasks: int
    faults: int
    every_seconds: float
    folder: Path
    within_seconds: float = math.inf
    only: str | None = None


def run(plan: Plan) -> tuple[Verdict, float]:
    """Run the plan, and return the verdict and the seconds that it took."""
    begun = time.monotonic()
    with ExitStack() as stack:
        book = stack.enter_context(valkey.run_server(plan.folder / "ledger", extra=["appendonly no"]))
        broker = broker_for(plan.only, plan.folder / "broker")
        stack.callback(broker.kill)
        env = environment_for(broker.url, book.url, way=plan.transport)
        store = connect(broker.url)
        if plan.transport != "stock":
            for queue in QUEUES:
                limits.change_limits(store, queue, dead_bound=1_000_000)
        fleet = Fleet(plan.transport, env, plan.folder / "workers.log")
        stack.callback(fleet.stop)
        log = _logger(plan.folder / "faults.log")
        faults = _faults(plan, fleet, broker, log)
        if isinstance(faults, Forgetting) or plan.transport in ("transport", "app"):
            _wait_for_workers(store)
        producers = _producers(plan, env)
        for producer in producers:
            stack.callback(producer.kill)
        deadline = begun + plan.within_seconds
        _play(plan, faults, producers, book.url, deadline)
        faults.finish()
        stuck = _stuck(plan, producers, store, deadline)
        if plan.transport != "stock":
            stuck += [
                f"counts as running what has ended: {each}"
                for each in processes_that_count(store, list(QUEUES))
            ]
        code = fleet.stop()
        verdict = _judge(plan, faults, book.url, store)
    verdict.wrong += stuck + ([f"the supervisor ended with {code}"] if code else [])
    return verdict, time.monotonic() - begun


def _play(
    plan: Plan,
    faults: Faults | Forgetting,
    producers: list["subprocess.Popen[bytes]"],
    book: str,
    deadline: float,
) -> None:
    """Inflict the faults, spread over the time in which tasks are sent, until the producers have ended."""
    next_at, total = time.monotonic() + 2 * plan.every_seconds, plan.faults
    while len(faults.inflicted) < total or faults.under_way or _running(producers):
        faults.tick()
        if time.monotonic() > deadline:
            total, deadline = len(faults.inflicted), math.inf
            for producer in producers:
                producer.terminate()
        share = ledger.offered(book) / plan.tasks
        is_time = time.monotonic() >= next_at and len(faults.inflicted) < total
        is_its_turn = len(faults.inflicted) < plan.faults * share + 1 or not _running(producers)
        if is_time and is_its_turn and faults.inflict():
            next_at = time.monotonic() + plan.every_seconds
        time.sleep(0.05)


def _wait_for_workers(store: Store) -> None:
    """Wait until every worker process consumes, so that the faults hit running tasks."""
    processes = sum(pool.processes for pool in POOLS.values())
    wait_until(
        lambda: all(inspect_depth.read_depth(store, queue).consumers >= processes for queue in QUEUES),
        180,
        "the workers did not start",
    )


def _stuck(
    plan: Plan, producers: list["subprocess.Popen[bytes]"], store: Store, deadline: float
) -> list[str]:
    """Wait until no task is left, or their number does not fall. Return a line for each violation."""
    patience_seconds = PATIENCE_SECONDS[plan.transport]
    wrong = [f"a producer ended with {p.returncode}" for p in producers if p.returncode]
    fewest, moved_at, quiet_since = math.inf, time.monotonic(), time.monotonic()
    while (now := time.monotonic()) - quiet_since < _QUIET_SECONDS:
        time.sleep(0.1)
        more = left(plan.transport, store)
        if more:
            quiet_since = now
        if more < fewest:
            fewest, moved_at = more, now
        if now - moved_at > patience_seconds:
            return [*wrong, f"not settled: {more:.0f} messages, no fewer for {patience_seconds:.0f} s"]
        if more and now > deadline:
            return [*wrong, f"not settled in time: {more:.0f} messages"]
    return wrong


def _running(producers: list["subprocess.Popen[bytes]"]) -> bool:
    return any(producer.poll() is None for producer in producers)


def _faults(
    plan: Plan, fleet: Fleet, broker: Broker | GuardedBroker, log: Callable[[str], None]
) -> Faults | Forgetting:
    if isinstance(broker, GuardedBroker) or plan.only in KINDS:
        return Forgetting(plan.seed, plan.only or KINDS[0], broker, log)
    return Faults(plan.seed, fleet, broker, log, only=plan.only)


def _judge(plan: Plan, faults: Faults | Forgetting, book: str, store: Store) -> Verdict:
    events = list(ledger.read(book))
    _keep(plan.folder / "events.jsonl", events)
    _keep(plan.folder / "faults.jsonl", map(asdict, faults.inflicted))
    tasks, batches = tasks_of(events)
    if plan.transport == "stock":
        verdict = judge(tasks, faults.inflicted, set(), waiting(store), retries_are_sent=True)
    else:
        letters = dead_letters(store)
        verdict = judge(tasks, faults.inflicted, letters, retries_are_sent=plan.transport != "millpond")
        verdict.counts["batches"] = len(batches)
        forgotten = Forgotten(faults.inflicted)
        wrong = wrong_batches(store, batches, tasks, forgotten)
        verdict.counts["batches wrong"] = len(wrong)
        verdict.counts["batches forgotten"] = len(forgotten.batches)
        verdict.wrong += wrong
        if plan.transport != "transport":
            verdict.wrong += wrong_letters(tasks, letters, forgotten)
        if plan.only in KINDS:
            verdict.counts["said: deliveries forgotten"] = _said(store)
    return verdict


def _said(store: Store) -> int:
    """Return the number of deliveries that the workers reported as lost by the broker."""
    return sum(inspect_depth.read_depth(store, queue).counters.get("forgotten", 0) for queue in QUEUES)


def _keep(path: Path, lines: Iterable[Any]) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def _producers(plan: Plan, env: dict[str, str]) -> list["subprocess.Popen[bytes]"]:
    seconds = plan.faults * plan.every_seconds + 5
    rate = plan.tasks / seconds / PRODUCERS

    def start(number: int) -> "subprocess.Popen[bytes]":
        arguments = [plan.transport, plan.seed, number, plan.tasks // PRODUCERS, rate]
        command = [sys.executable, "-m", "tests.scenarios.chaos.producing", *map(str, arguments)]
        with (plan.folder / f"producer-{number}.log").open("wb") as log:
            return subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    return [start(number) for number in range(PRODUCERS)]


def _logger(path: Path) -> Callable[[str], None]:
    def log(line: str) -> None:
        with path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    return log
