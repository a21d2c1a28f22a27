"""From stock workers to Millpond and back, by a ledger of every run: nothing is lost, repeats have names."""

import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery

from millpond.broker.connection import Store
from millpond.broker.inspect.depth import read_depth
from tests.applications.ways import ROOT, Running, environment, worker
from tests.conftest import Eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Start = Callable[[str], AbstractContextManager[Running]]
FOLDER = ROOT / "tests" / "applications" / "moving"


@pytest.fixture
def start(url: str, tmp_path: Path, eventually: Eventually) -> Start:
    """Return a function that runs a worker of the application in one of the ways."""
    return lambda way: worker(way, "moving", url, tmp_path / way, eventually, paths=[FOLDER])


def millpond(url: str, folder: Path, *words: str) -> str:
    """Return the output of a command; a stock application's queue needs no table."""
    env = {**environment("stock", url, []), "MILLPOND_BROKER_URL": url}
    running = Running("stock", env, folder, None)  # type: ignore[arg-type]
    return running.run(sys.executable, "-m", "millpond", *words).strip()


def send(app: Celery, number: int, waits: bool = False, **options: Any) -> None:
    """Send a step as stock clients do."""
    app.send_task("step", (number, waits), **options)


def ledger(store: Store, which: str = "ended") -> Counter[int]:
    """Return how often each step ran."""
    return Counter(map(int, store.client.lrange(f"ledger:{which}", 0, -1)))


def unacked(store: Store) -> int:
    """Return how many messages stock workers have."""
    return int(store.client.hlen("unacked"))


def test_messages_that_a_killed_stock_worker_left_are_taken_in(
    start: Start, url: str, plain_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    """Running, prefetched and delayed tasks of a killed stock worker run; a live one keeps its own."""
    app = Celery(broker=url)
    due = datetime.now(UTC) + timedelta(seconds=60)
    with start("stock") as stock:
        for number in (10, 11):
            send(app, number, eta=due)
        for number in range(4):
            send(app, number, waits=True)
        eventually(lambda: len(ledger(plain_store, "started")) == 2 and unacked(plain_store) == 6)
        said = millpond(url, tmp_path, "adopt", "celery")
        left = "celery: 0 taken in, 0 of them with an ETA; 6 left with workers that have them; 0 were ready"
        assert said == left
        family = [
            stock.process.pid,
            *(c.pid for c in psutil.Process(stock.process.pid).children(recursive=True)),
        ]
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        stock.process.wait(10)

    send(app, 20)
    said = millpond(url, tmp_path, "adopt")
    assert (
        said == "celery: 6 taken in, 2 of them with an ETA; 0 left with workers that have them; 1 were ready"
    )
    assert (unacked(plain_store), plain_store.client.zcard("unacked_index")) == (0, 0)
    assert read_depth(plain_store, "celery").counters["taken_in"] == 6
    with start("app"):
        eventually(lambda: read_depth(plain_store, "celery").delayed == 2 or time_is(due))
        plain_store.client.set("go", 1)
        eventually(lambda: ledger(plain_store) == dict.fromkeys((0, 1, 2, 3, 10, 11, 20), 1), 60)
    assert ledger(plain_store, "started") == {0: 2, 1: 2, 2: 1, 3: 1, 10: 1, 11: 1, 20: 1}
    assert read_depth(plain_store, "celery").dead == 0


def time_is(due: datetime) -> bool:
    """True from a time on."""
    return datetime.now(UTC) >= due


def test_a_move_there_and_back_under_load_loses_nothing(
    start: Start, url: str, plain_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    """Stock, side by side, Millpond, side by side, stock: each message runs once, delayed ones among them."""
    sent: list[int] = []
    over = threading.Event()

    def produce() -> None:
        app = Celery(broker=url)
        while not over.wait(0.02):
            send(app, len(sent), countdown=1 if len(sent) % 5 == 0 else None)
            sent.append(len(sent))

    def goes_on() -> None:
        """Wait until fifty messages more were run."""
        before = len(ledger(plain_store))
        eventually(lambda: len(ledger(plain_store)) > before + 50, 30)

    producing = threading.Thread(target=produce)
    producing.start()
    try:
        with start("app") as ours:
            with start("stock"):
                goes_on()  # side by side
            goes_on()  # Millpond alone
            send(Celery(broker=url), -1, countdown=75)
            eventually(lambda: read_depth(plain_store, "celery").delayed >= 1)
        said = millpond(url, tmp_path, "adopt", "--back", "celery")
        assert re.match(
            r"celery: [1-9]\d* delayed messages handed back, \d+ ready; 0 in flight, 0 dead", said
        ), said
        with start("stock"):
            goes_on()  # stock alone
            over.set()
            producing.join()
            eventually(lambda: len(ledger(plain_store)) == len(sent) + 1, 60)
    finally:
        over.set()
        producing.join()
    assert ours.process.returncode == 0
    assert set(ledger(plain_store)) == {-1, *sent}
    assert {number: runs for number, runs in ledger(plain_store).items() if runs > 1} == {}
    seen = read_depth(plain_store, "celery")
    assert (unacked(plain_store), seen.ready, seen.delayed) == (0, 0, 0)
