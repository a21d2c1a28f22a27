"""Drain a worker process under load many times, while a task that does not end runs in it.

Each handler writes its start, its end and its number of deliveries to a file. Threads and prefork take turns.
"""

import json
import logging
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from millpond.broker.connection import connect
from millpond.broker.inspect.depth import Depth, read_depth
from millpond.producer.client import Client
from millpond.tasks.pools import STOP_MARGIN_SECONDS
from tests.scenarios.evidence.setting import OneWorker, server, settings, workers

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 1.0
TASKS_A_DRAIN = 40
ENDLESS = "endless"


def run(count: int, folder: Path) -> dict[str, Any]:
    """Drain `count` times, run the remaining tasks, and return the figures."""
    notes, took = folder / "notes", list[float]()
    with server(folder) as url:
        from broker_kinds import Act

        store = connect(url)
        chosen = [
            settings(url, executor=executor, concurrency=4, prefetch=16, drain_seconds=DRAIN_SECONDS)
            for executor in ("threads", "prefork")
        ]
        with Client(settings=chosen[0]) as client, client.batch("drained") as batch:
            batch.send(Act(file=str(notes), name=ENDLESS, seconds=3_600))
            for n in range(count):
                tasks = (Act(file=str(notes), name=f"{n}-{k}", seconds=0.05) for k in range(TASKS_A_DRAIN))
                batch.send_many(tasks)
                with workers(chosen[n % 2], folder) as (worker,):
                    _wait_for_load(notes, n + 1)
                    took.append(_drained(worker))
                left = read_depth(store, "default")
                _check(left, n)
                logger.info("drain %d took %.2f s, %d wait", n + 1, took[-1], left.ready)
            _finish(batch.id, client, chosen[0], folder, notes)
            summary = batch.summary()
    runs, ends, deliveries = _ledger(notes)
    again = {name: times for name, times in runs.items() if times > 1}
    unexplained = {name for name in again if times_cut(notes, name) < again[name] - 1}
    assert not unexplained, f"run twice although no deadline cut them: {sorted(unexplained)[:5]}"
    assert set(deliveries) == {1}, f"deliveries were counted: {deliveries}"
    assert summary.succeeded + summary.cancelled == summary.sent == count * TASKS_A_DRAIN + 1
    assert len(ends) == summary.succeeded == count * TASKS_A_DRAIN, "a task was lost"
    return {
        "drains": count,
        "tasks": summary.sent,
        "deadline, s": DRAIN_SECONDS,
        "exit after SIGTERM, s: median": round(statistics.median(took), 2),
        "exit after SIGTERM, s: longest": round(max(took), 2),
        "lost": 0,
        "deliveries counted": 0,
        "runs of the endless task": runs[ENDLESS],
        "other tasks run again, each cut by a deadline": len(again) - (ENDLESS in again),
    }


def times_cut(notes: Path, name: str) -> int:
    """Return the number of a task's runs that began and did not end."""
    lines = (json.loads(line) for line in notes.read_text().splitlines())
    whens = Counter(line["when"] for line in lines if line["name"] == name)
    return whens["start"] - whens["end"]


def _drained(worker: OneWorker) -> float:
    begun = time.monotonic()
    code = worker.stop(within_seconds=DRAIN_SECONDS + STOP_MARGIN_SECONDS)
    assert code == 0, worker.log[-2_000:]
    return time.monotonic() - begun


def _check(left: Depth, n: int) -> None:
    assert (left.in_flight, left.dead) == (0, 0), f"drain {n}: {left}"
    assert left.counters.get("redelivered", 0) == 0, f"drain {n} counted a delivery"


def _wait_for_load(notes: Path, runs: int) -> None:
    """Wait until the endless task has run `runs` times, and more than ten notes of others came after it."""
    while True:
        text = notes.read_text() if notes.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        endless = [line for line in lines if line["name"] == ENDLESS]
        if len(endless) >= runs and sum(line["at"] > endless[-1]["at"] for line in lines) > 10:
            return
        time.sleep(0.05)


def _finish(batch: str, client: Client, chosen: Any, folder: Path, notes: Path) -> None:
    """Cancel the task that does not end, and run all others to their end."""
    endless = json.loads(client.store.client.lindex("default", -1))["headers"]["id"]
    assert client.cancel(endless).settled == 1, "the task that was cut off is at the head of its queue"
    with workers(chosen, folder):
        while client.open_batch(batch).summary().pending:
            time.sleep(0.1)


def _ledger(notes: Path) -> tuple[Counter[str], set[str], Counter[int]]:
    runs: Counter[str] = Counter()
    deliveries: Counter[int] = Counter()
    ends = set()
    for line in notes.read_text().splitlines():
        note = json.loads(line)
        deliveries[note["deliveries"]] += 1
        if note["when"] == "start":
            runs[note["name"]] += 1
        else:
            ends.add(note["name"])
    return runs, ends, deliveries
