"""Kinds that wait for something: the bottlenecks of the scenarios."""

import threading
import time
import urllib.request

from millpond import Context, Contract, body

LOCK = threading.Lock()


class Sleep(Contract, kind="bottleneck.sleep"):
    seconds: float


class Ask(Contract, kind="bottleneck.ask"):
    url: str


class Locked(Contract, kind="bottleneck.locked"):
    seconds: float


class Burn(Contract, kind="bottleneck.burn"):
    seconds: float


@body(Sleep)
def sleep(job: Sleep, context: Context) -> None:
    time.sleep(job.seconds)


@body(Ask)
def ask(job: Ask, context: Context) -> None:
    with urllib.request.urlopen(job.url, timeout=60) as answer:
        answer.read()


@body(Locked)
def locked(job: Locked, context: Context) -> None:
    with LOCK:
        time.sleep(job.seconds)


@body(Burn)
def burn(job: Burn, context: Context) -> None:
    until = time.thread_time() + job.seconds
    while time.thread_time() < until:
        sum(range(100))
