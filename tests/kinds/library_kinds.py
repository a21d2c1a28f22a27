"""Kinds that wait inside a library: pools of connections, polled locks, own threads, logging."""

import logging
import multiprocessing
import os
import queue
import smtplib
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from typing import Any

from kept_connections import redis_client

from millpond import Context, Contract, body

_LOCK = threading.Lock()
_OWN_SEMAPHORE = multiprocessing.Lock()
_OWN_THREADS = ThreadPoolExecutor(64)
_TWO_THREADS = ThreadPoolExecutor(2)
_HERE = threading.local()


class Pooled(Contract, kind="library.pooled"):
    """Ask PostgreSQL or a service by one of two connections that a library keeps for the process."""

    library: str
    url: str
    seconds: float = 0.0


class Throttled(Contract, kind="library.throttled"):
    """Take a turn of a client that allows itself so many calls a second."""

    by: str
    seconds: float
    path: str = ""


class Aside(Contract, kind="library.aside"):
    """Wait for other threads or processes that do the work."""

    how: str
    seconds: float


class Logs(Contract, kind="library.logs"):
    """Write lines to a log: slow under its lock, or a pipe that is read slowly."""

    path: str = ""


class Lines(Contract, kind="library.lines"):
    """Read the lines of an order by an ORM: one statement for each, or one for all."""

    url: str
    lines: int
    at_once: bool = False


class Greylisted(Contract, kind="library.greylisted"):
    """Send a mail to a server that answers 451."""

    port: int


class Refused(Contract, kind="library.refused"):
    """Ask a service that refuses, and ask again after a while; give up the fifth time."""

    url: str
    seconds: float


class HotKey(Contract, kind="library.hot_key"):
    """Keep the lock of a key in Redis; one of the keys is hot."""

    seconds: float


class Matrix(Contract, kind="library.matrix"):
    """Multiply matrices."""

    size: int


class Subtask(Contract, kind="library.subtask"):
    """Send a task to the same pool and wait for its result."""

    seconds: float


@cache
def _engine(url: str) -> Any:
    from sqlalchemy import create_engine

    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"), pool_size=2, max_overflow=0)


@cache
def _psycopg_pool(url: str) -> Any:
    from psycopg_pool import ConnectionPool

    return ConnectionPool(url, min_size=2, max_size=2, timeout=60, open=True)


@cache
def _requests(_url: str) -> Any:
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=2, pool_block=True))
    return session


@cache
def _httpx(_url: str) -> Any:
    import httpx

    return httpx.Client(limits=httpx.Limits(max_connections=2), timeout=60)


@body(Pooled)
def pooled(job: Pooled, context: Context) -> None:
    with _LOCK:
        made = {"sqlalchemy": _engine, "psycopg": _psycopg_pool, "requests": _requests, "httpx": _httpx}
        kept = made[job.library](job.url)
    if job.library == "sqlalchemy":
        with kept.connect() as connection:
            connection.exec_driver_sql("select pg_sleep(%s)", (job.seconds,))
    elif job.library == "psycopg":
        with kept.connection() as connection:
            connection.execute("select pg_sleep(%s)", (job.seconds,))
    else:
        kept.get(job.url)


_next = {"at": 0.0}


@body(Throttled)
def throttled(job: Throttled, context: Context) -> None:
    if job.by == "process":
        with _LOCK:
            _next["at"] = max(_next["at"] + job.seconds, time.monotonic())
            time.sleep(max(0.0, _next["at"] - time.monotonic()))
    elif job.by == "filelock":
        from filelock import FileLock

        with FileLock(job.path):
            time.sleep(job.seconds)
    elif job.by == "semaphore":
        with _OWN_SEMAPHORE:
            time.sleep(job.seconds)
    else:
        while not redis_client().set("shop:turn", "1", nx=True, px=int(job.seconds * 1000)):
            time.sleep(job.seconds)


def _computing(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(100))


_PROCESSES: list[ProcessPoolExecutor] = []


@body(Aside)
def aside(job: Aside, context: Context) -> None:
    if job.how == "own threads":
        _OWN_THREADS.submit(time.sleep, job.seconds).result(60)
    elif job.how == "two threads":
        _TWO_THREADS.submit(time.sleep, job.seconds).result(60)
    elif job.how == "writer":
        _writer().put(job.seconds)
    else:
        with _LOCK:
            if not _PROCESSES:
                _PROCESSES.append(ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")))
        _PROCESSES[0].submit(_computing, job.seconds).result(60)


@cache
def _writer() -> "queue.Queue[float]":
    jobs: queue.Queue[float] = queue.Queue(4)

    def write() -> None:
        while True:
            time.sleep(jobs.get())

    threading.Thread(target=write, daemon=True).start()
    return jobs


class _Slow(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        time.sleep(0.01)


_log = logging.getLogger("library.shop")
_log.addHandler(_Slow())
_log.propagate = False


@body(Logs)
def logs(job: Logs, context: Context) -> None:
    if not job.path:
        _log.warning("an order came")
        return
    if getattr(_HERE, "pipe", None) is None:
        _HERE.pipe = os.open(job.path, os.O_WRONLY)
    os.write(_HERE.pipe, b"x" * 4000)


@cache
def _orm(url: str) -> Any:
    from sqlalchemy import create_engine

    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"), pool_size=32)


@body(Lines)
def lines(job: Lines, context: Context) -> None:
    with _LOCK:
        engine = _orm(job.url)
    with engine.connect() as connection:
        if job.at_once:
            connection.exec_driver_sql("select n from stock where id < %s", (job.lines,)).all()
            return
        for n in range(job.lines):
            connection.exec_driver_sql("select n from stock where id = %s", (n,)).all()


@body(Greylisted)
def greylisted(job: Greylisted, context: Context) -> None:
    with smtplib.SMTP("127.0.0.1", job.port, timeout=60) as server:
        server.sendmail("shop@example.org", ["ann@example.org"], "Subject: Hello\n\ntext")


@body(Refused)
def refused(job: Refused, context: Context) -> None:
    for _ in range(4):
        try:
            urllib.request.urlopen(job.url, timeout=5).read()
            return
        except urllib.error.URLError:
            time.sleep(job.seconds)
    urllib.request.urlopen(job.url, timeout=5).read()


@body(HotKey)
def hot_key(job: HotKey, context: Context) -> None:
    import random

    key = 0 if random.random() < 0.8 else random.randrange(1, 1000)
    with redis_client().lock(f"shop:key:{key}", timeout=60):
        time.sleep(job.seconds)


@body(Matrix)
def matrix(job: Matrix, context: Context) -> None:
    import numpy

    left = numpy.ones((job.size, job.size))
    for _ in range(3):
        left = left @ left * 1e-6


@body(Subtask)
def subtask(job: Subtask, context: Context) -> None:
    from millpond import Client
    from millpond.tasks.settings import settings

    with Client(settings=settings()) as client:
        with client.batch() as batch:
            batch.send(("bottleneck.sleep", {"seconds": job.seconds}))
        list(batch.results())
