"""Measure what a million delayed tasks in Redis cost an idle worker of their queue.

The worker is measured before they are sent and while they wait. Then tasks that are due in a second must
start in time, as if there were no others.
"""

import time
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from millpond.broker import limits
from millpond.broker.inspect.depth import read_depth
from millpond.producer.client import Client
from millpond.producer.message import Message
from millpond.tasks.squares.contract import Square
from tests.scenarios.evidence.setting import server, settings, workers

#: How long the idle worker is measured.
LOOK_SECONDS = 20.0
SOON = timedelta(seconds=1)
#: The number of tasks that are due soon.
TIMES = 20


def run(
    count: int, folder: Path, *, look_seconds: float = LOOK_SECONDS, times: int = TIMES
) -> dict[str, Any]:
    """Run it with `count` delayed tasks, and return the figures. Memory is in MB."""
    with server(folder) as url:
        chosen = settings(url, bound=1_000, executor="threads", concurrency=4)
        with workers(chosen, folder) as [worker], Client(settings=chosen) as client:
            limits.change_limits(client.store, "default", delayed_bound=count + times)
            process = psutil.Process(worker.pid)
            _late_ms(client)
            before = _idle(process, look_seconds)
            begun = time.monotonic()
            later = Message(Square(n=1), delay=timedelta(hours=6))
            client.send_many(later for _ in range(count))
            sent_seconds = time.monotonic() - begun
            during = _idle(process, look_seconds)
            late = sorted(_late_ms(client) for _ in range(times))
            waiting = read_depth(client.store, "default").delayed
            server_mb = client.store.client.info("memory")["used_memory"] / 1e6
    assert waiting == count, f"{waiting} of {count} are still delayed"
    assert during["MB"] < before["MB"] + 5
    return {
        "delayed": waiting,
        "sent in s": round(sent_seconds, 1),
        "worker MB before": before["MB"],
        "worker MB while they wait": during["MB"],
        "worker CPU ms a second before": before["CPU"],
        "worker CPU ms a second while they wait": during["CPU"],
        "due in a second, ended so many ms after: median": round(median(late), 1),
        "due in a second, ended so many ms after: longest": round(late[-1], 1),
        "server MB": round(server_mb),
    }


def _idle(process: psutil.Process, seconds: float) -> dict[str, float]:
    used, begun = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    used = sum(process.cpu_times()[:2]) - used
    memory = process.memory_info().rss / 1e6
    return {"MB": round(memory, 1), "CPU": round(used * 1000 / (time.monotonic() - begun), 1)}


def _late_ms(client: Client) -> float:
    """Send a task that is due in a second, and return the ms from then until its result was there."""
    begun = time.monotonic()
    with client.batch() as batch:
        batch.send(Square(n=7), delay=SOON)
    [result] = list(batch.results())
    assert result.value == 49
    return (time.monotonic() - begun - SOON.total_seconds()) * 1000
