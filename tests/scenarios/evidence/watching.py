"""Measure Flower at 200 tasks a second for ten minutes, with 200,000 tasks in all. Then start it again.

The first 80,000 tasks are sent as fast as Flower receives their events, so that it soon keeps its maximum of
tasks in memory. A page and the metrics are requested every two seconds, as by an operator.
"""

import json
import logging
import re
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from millpond.broker.inspect.depth import read_depth
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from tests.harness.counters import counters_at_the_end
from tests.harness.flower_process import LOGIN, Visitor, run_flower_process
from tests.harness.waiting import wait_until
from tests.scenarios.evidence.setting import server, settings, workers

logger = logging.getLogger(__name__)

PER_SECOND = 200
#: The share of all tasks that is sent at that rate.
PACED = 0.6
#: The number of tasks by which Flower may be behind in the first part.
BEHIND = 2_000
#: The factor by which memory may grow once Flower has heard of twice the tasks that it keeps.
FLAT = 1.1
LOOK_SECONDS = 2.0


@dataclass
class Watch:
    """The measurements of one Flower: pairs of the tasks that it has heard of and its memory in MB."""

    visitor: Visitor
    process: psutil.Process
    memory: list[tuple[int, float]] = field(default_factory=list)
    page_seconds: list[float] = field(default_factory=list)

    def look(self) -> int:
        """Load a page and the metrics, and return the number of tasks of which Flower has heard the end.

        If a response does not come in time, its time is recorded, and the last number is returned.
        """
        begun = time.monotonic()
        try:
            return self._look(begun)
        except TimeoutError:
            self.page_seconds.append(time.monotonic() - begun)
            return self.memory[-1][0] if self.memory else 0

    def _look(self, begun: float) -> int:
        assert self.visitor.get("/queues").status == 200
        self.page_seconds.append(time.monotonic() - begun)
        ended = re.findall(
            r'^flower_events_total{[^}]*type="task-succeeded"[^}]*} (\S+)',
            self.visitor.get("/metrics").text,
            re.MULTILINE,
        )
        seen = int(sum(map(float, ended)))
        self.memory.append((seen, self.process.memory_info().rss / 1e6))
        return seen


def run(count: int, folder: Path) -> dict[str, Any]:
    """Run it with `count` tasks, and return the figures. Memory is in MB."""
    with server(folder) as url:
        chosen = settings(url, executor="threads", concurrency=4, prefetch=64).model_copy(
            update={
                "flower_basic_auth": Settings(flower_basic_auth=(LOGIN,)).flower_basic_auth,
                "task_events_per_second": 0,  # it is filled faster than tasks are shown by default
            }
        )
        with workers(chosen, folder), Client(settings=chosen) as client:
            with run_flower_process(chosen) as (page, process):
                watch = Watch(Visitor(page), psutil.Process(process.pid))
                sent = _until_heard(watch, client)
                sent += _fill(watch, client, int(count * (1 - PACED)), before=sent)
                begun = time.monotonic()
                sent += _paced(watch, client, int(count * PACED))
                seconds = time.monotonic() - begun
                seen = _until_all_heard(watch, sent)
            wait_until(lambda: _counters(client)["settled"] >= sent, 60, "the tasks have not ended")
            told, ready_seconds, right_seconds = _started_again(chosen)
            right = counters_at_the_end(_counters(client), sent)
    figures = {
        "tasks sent": sent,
        "tasks that Flower heard the end of": seen,
        "at 200 a second, s": round(seconds, 1),
        "memory at the start MB": round(watch.memory[0][1]),
        **{f"memory at {at:,} tasks MB": mb for at, mb in _memory(watch, sent)},
        "a page under way, s: median": round(statistics.median(watch.page_seconds), 2),
        "a page under way, s: 99 of 100": round(statistics.quantiles(watch.page_seconds, n=100)[98], 2),
        "a page under way, s: longest": round(max(watch.page_seconds), 2),
        "started again: first answer after s": ready_seconds,
        "started again: the first page asked for took s": right_seconds,
        "started again: counters on it": told,
    }
    logger.info("%s", json.dumps(figures))
    assert seen >= sent - max(20, sent // 1_000), "Flower missed events"
    kept = [mb for at, mb in watch.memory if at >= 2 * chosen.flower_max_tasks]
    assert not kept or max(kept) <= kept[0] * FLAT, f"memory grows: {kept[0]:.0f} to {max(kept):.0f} MB"
    assert told == right, "a page of the new Flower is wrong"
    return figures


def _until_heard(watch: Watch, client: Client) -> int:
    """Send tasks one by one until Flower has heard the end of one. Return the number of tasks sent."""
    sent = 0
    while not watch.look():
        client.send(Square(n=1))
        sent += 1
        time.sleep(0.5)
    return sent


def _fill(watch: Watch, client: Client, count: int, *, before: int) -> int:
    sent = 0
    while sent < count:
        sent += client.send_many(Square(n=n) for n in range(min(500, count - sent))).accepted
        while watch.look() < before + sent - BEHIND:
            time.sleep(0.2)
    return sent


def _paced(watch: Watch, client: Client, count: int) -> int:
    """Send `count` tasks at `PER_SECOND`, and look at Flower every two seconds. Return the number sent."""
    begun, sent, looked = time.monotonic(), 0, 0.0
    while sent < count:
        due = min(count, int((time.monotonic() - begun) * PER_SECOND))
        if due > sent:
            sent += client.send_many(Square(n=n) for n in range(due - sent)).accepted
        if time.monotonic() - looked >= LOOK_SECONDS:
            seen, looked = watch.look(), time.monotonic()
            if len(watch.memory) % 15 == 0:
                logger.info("%d sent, %d heard, %.0f MB", sent, seen, watch.memory[-1][1])
        time.sleep(0.05)
    return sent


def _until_all_heard(watch: Watch, sent: int) -> int:
    deadline = time.monotonic() + 60
    while (seen := watch.look()) < sent and time.monotonic() < deadline:
        time.sleep(0.5)
    return seen


def _counters(client: Client) -> dict[str, int]:
    return read_depth(client.store, "default").counters


def _started_again(chosen: Settings) -> tuple[dict[str, int], float, float]:
    """Start another Flower, and return the counters on its first page, and the seconds of start and page."""
    begun = time.monotonic()
    with run_flower_process(chosen) as (page, _):
        ready = time.monotonic()
        text = Visitor(page).get("/queues/default").text
        took = time.monotonic() - ready
    counters = dict(re.findall(r'data-counter="(\w+)">\s*([\d,]+)', text))
    told = {name: int(counters[name].replace(",", "")) for name in ("published", "fetched", "settled")}
    return told, round(ready - begun, 2), round(took, 3)


def _memory(watch: Watch, sent: int) -> list[tuple[int, int]]:
    """Return pairs of a number of tasks and Flower's memory in MB then, for each quarter of all tasks."""
    marks = [sent * quarter // 4 for quarter in (1, 2, 3)]
    found = [next((mb for seen, mb in watch.memory if seen >= mark), 0.0) for mark in marks]
    return list(zip([*marks, sent], map(round, [*found, watch.memory[-1][1]]), strict=True))
