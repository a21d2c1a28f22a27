"""Measure one system once: how fast it drains and publishes, its latency, and its cost on the server."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
import redis

from millpond.broker import limits
from millpond.broker.connection import connect
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from tests.harness.waiting import wait_until
from tests.scenarios.bench.apps import Noop, make_stock

ROOT = Path(__file__).parents[3]

_wait = partial(wait_until, within_seconds=300, failure="the workers made no progress", every_seconds=0.01)


@dataclass(frozen=True)
class Executor:
    """A shape of workers: Celery's pool, the number of processes, and the slots of each."""

    name: str
    pool: str
    processes: int
    slots: int


PREFORK = Executor("prefork 2", "prefork", 1, 2)
THREADS = Executor("2 x 4 threads", "threads", 2, 4)


@dataclass(frozen=True)
class Drained:
    """The figures of one emptied queue: tasks a second, and the cost of each task."""

    per_second: float
    commands_per_task: float
    bytes_per_task: float
    cpu_ms_per_thousand: float


#: The events of every task are sent, as stock does. By default Millpond sends those of a sample.
_EVERY_EVENT = {"MILLPOND_TASK_EVENTS_PER_SECOND": "0"}

#: The variables that `millpond worker` sets for prefork; stock Celery is faster with them as well.
_FAST_LOCALS = {"USE_FAST_LOCALS": "1"}


@contextmanager
def workers(
    system: str, url: str, executor: Executor, *, events: bool, starts: Path, more: Mapping[str, str] = {}
) -> Iterator[list[psutil.Process]]:
    """Run the workers of a system for the length of a `with` block, which begins when all are ready.

    `starts` is the file to which tasks append (apps.py), `more` are further environment variables.
    """
    words = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        f"tests.scenarios.bench.apps:{system}",
        "worker",
        "-P",
        executor.pool,
    ]
    words += [
        "-c",
        str(executor.slots),
        "-Q",
        "default",
        "-l",
        "ERROR",
        "--without-gossip",
        "--without-mingle",
    ]
    words += ["-E"] if events else ["--without-heartbeat"]
    ready = starts.with_name(f"ready-{time.monotonic_ns()}")
    ready.touch()
    environment = {**os.environ, "BENCH_URL": url, "BENCH_STARTS": str(starts), "BENCH_READY": str(ready)}
    environment |= {"PYTHONWARNINGS": "ignore", **_EVERY_EVENT, **more}
    if executor.pool == "prefork":
        environment |= _FAST_LOCALS
    started = [
        subprocess.Popen(
            [*words, "-n", f"{system}{i}@bench"],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for i in range(executor.processes)
    ]  # fmt: skip
    try:
        _wait(lambda: len(ready.read_bytes()) == executor.processes, within_seconds=30)
        yield [psutil.Process(process.pid) for process in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


def drain(
    system: str,
    url: str,
    executor: Executor,
    *,
    tasks: int,
    events: bool,
    folder: Path,
    hold_ms: float = 0,
    more: Mapping[str, str] = {},
) -> Drained:
    """Measure how workers empty a full queue: the middle eight tenths of its tasks.

    The queue has another name until all workers are ready. Otherwise one would work while another starts.
    `hold_ms` is the time for which a task sleeps, `more` are further environment variables of the workers.
    """
    client = redis.Redis.from_url(url)
    client.flushdb()
    _fill(url, tasks, hold_ms)
    left = _left_of(system, client)
    client.rename("default", "aside")
    with workers(system, url, executor, events=events, starts=folder / "unused", more=more) as processes:
        client.rename("aside", "default")
        _wait(lambda: left() < tasks * 0.9)
        before, cpu, started, at = _server(system, client), _cpu(processes), left(), time.monotonic()
        _wait(lambda: left() < tasks * 0.1)
        seconds, done = time.monotonic() - at, started - left()
        after, cpu_after = _server(system, client), _cpu(processes)
    commands = after["commands"] - before["commands"]
    moved = after["bytes"] - before["bytes"]
    return Drained(done / seconds, commands / done, moved / done, (cpu_after - cpu) / done * 1e6)


def latency_ms(
    system: str, url: str, executor: Executor, *, tasks: int, folder: Path, client_of: str | None = None
) -> tuple[float, float]:
    """Send one task at a time to idle workers, by their own client or by that of the system `client_of`.

    Return the median and the 99th percentile of the time from sending to start, in ms.
    """
    client = redis.Redis.from_url(url)
    client.flushdb()
    starts = folder / f"starts-{system}-{time.monotonic_ns()}"
    starts.touch()
    send = _sender(client_of or system, url)
    with workers(system, url, executor, events=False, starts=starts):
        for n in range(-20, tasks):  # the first twenty warm the workers up
            seen = starts.stat().st_size
            send(time.monotonic_ns())
            _wait(lambda seen=seen: starts.stat().st_size > seen, every_seconds=0.001)
            if n == -1:
                starts.write_bytes(b"")
            time.sleep(0.005)  # an idle worker, not one that is still busy acknowledging
    took = [int(line) / 1e6 for line in starts.read_text().split()]
    return median(took), quantiles(took, n=100)[98]


def publish_single(system: str, url: str, *, tasks: int) -> float:
    """Send one message with each call, and return the messages a second."""
    redis.Redis.from_url(url).flushdb()
    send = _sender(system, url)
    send(0)
    at = time.monotonic()
    for _ in range(tasks):
        send(0)
    return tasks / (time.monotonic() - at)


def publish_bulk(url: str, *, tasks: int) -> float:
    """Send an iterable with `Client.send_many`, and return the messages a second."""
    from millpond.producer.client import Client

    redis.Redis.from_url(url).flushdb()
    with Client(url) as client:
        limits.change_limits(client.store, Noop.queue, bound=tasks)
        at = time.monotonic()
        client.send_many((Noop() for _ in range(tasks)), overflow="reject")
        return tasks / (time.monotonic() - at)


def _sender(system: str, url: str) -> Any:
    if system == "stock":
        task = make_stock(url).tasks[Noop.kind]
        return lambda sent_ns: task.apply_async(kwargs={"sent_ns": sent_ns})
    from millpond.producer.client import Client

    client = Client(url)
    return lambda sent_ns: client.send(Noop(sent_ns=sent_ns))


def _fill(url: str, tasks: int, hold_ms: float) -> None:
    store = connect(url)
    kwargs = {"payload": "x" * 64, **({"hold_ms": hold_ms} if hold_ms else {})}
    for start in range(0, tasks, 1000):
        batch = [
            compose(Noop.kind, kwargs, queue="default", sent_at_ms=1)
            for _ in range(start, min(tasks, start + 1000))
        ]
        publish(store, batch, policy="exempt")
    store.close()


def _left_of(system: str, client: Any) -> Any:
    if system == "stock":
        return lambda: client.llen("default") + client.hlen("unacked")
    counters = "millpond:{default}:counters"

    def left() -> int:
        published, settled = client.hmget(counters, "published", "settled")
        return int(published or 0) - int(settled or 0)

    return left


def _server(system: str, client: Any) -> dict[str, float]:
    stats = client.info("commandstats")
    moved = client.info("stats")
    counted = _SENT_BY_POND if system == "pond" else stats.keys() - _OURS
    calls = sum(stats[name]["calls"] for name in counted if name in stats)
    return {"commands": calls, "bytes": moved["total_net_input_bytes"] + moved["total_net_output_bytes"]}


#: The commands that the measuring itself sends.
_OURS = {"cmdstat_info", "cmdstat_llen", "cmdstat_hlen", "cmdstat_hmget"}

#: The commands that Millpond's clients send under load; the server also counts those that its scripts call.
_SENT_BY_POND = {"cmdstat_evalsha", "cmdstat_eval", "cmdstat_blpop", "cmdstat_publish"}


def _cpu(processes: list[psutil.Process]) -> float:
    trees = [process for root in processes for process in (root, *root.children(recursive=True))]
    return sum(sum(process.cpu_times()[:2]) for process in trees)
