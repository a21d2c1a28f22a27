"""Kinds with bottlenecks that the rules of the diagnosis were not written for."""

import asyncio
import gc
import hashlib
import logging
import multiprocessing
import os
import random
import sqlite3
import ssl
import subprocess
import threading
import time
import urllib.request
import zlib
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from kept_connections import postgres_connection, redis_client

from millpond import Context, Contract, body

_HERE = threading.local()
_LOCK = threading.Lock()
_CACHE: dict[str, float] = {}


class AskTwo(Contract, kind="unforeseen.ask_two"):
    """Ask two services, one after the other, or only one of them."""

    first: str
    second: str
    only: str = ""


class AskAgain(Contract, kind="unforeseen.ask_again"):
    """Ask a service, and again after a growing pause when it fails."""

    url: str


class AskSafely(Contract, kind="unforeseen.ask_safely"):
    """Ask a service over a TLS connection of the task's own."""

    port: int


class AskAtOnce(Contract, kind="unforeseen.ask_at_once"):
    """Ask a service several times at once, in a loop of asyncio."""

    url: str
    times: int


class AskByGrpc(Contract, kind="unforeseen.ask_by_grpc"):
    """Call a gRPC server over one channel for the whole process."""

    port: int


class Upload(Contract, kind="unforeseen.upload"):
    """Send many bytes to a service."""

    url: str
    size: int


class RedisSemaphore(Contract, kind="unforeseen.redis_semaphore"):
    """Work with one of a few permits kept in Redis: polled by a counter, or taken from a list."""

    how: str
    seconds: float
    permits: int


class RedisKeys(Contract, kind="unforeseen.redis_keys"):
    """Read keys of a Redis server, one by one or all at once."""

    url: str
    keys: int
    at_once: bool = False


class RedisPool(Contract, kind="unforeseen.redis_pool"):
    """Wait at a Redis server by one of two connections of the process."""

    seconds: float


class TableLock(Contract, kind="unforeseen.table_lock"):
    """Lock a table of PostgreSQL for a while."""

    url: str
    seconds: float


class Deadlocks(Contract, kind="unforeseen.deadlocks"):
    """Update two of four rows in a random order; after a deadlock, try again."""

    url: str
    seconds: float


class SyncRows(Contract, kind="unforeseen.sync_rows"):
    """Insert a row into a SQLite database that is written to the disk at each commit."""

    path: str
    own: bool


class Computes(Contract, kind="unforeseen.computes"):
    """Compute in a library's C code, or in Python in some way."""

    how: str


class Shell(Contract, kind="unforeseen.shell"):
    """Run a program that computes: by a shell, `os.system`, `multiprocessing` or asyncio."""

    how: str
    seconds: float


class Cached(Contract, kind="unforeseen.cached"):
    """Use a cache of the process that its first task fills, slowly."""

    fill_seconds: float
    seconds: float


class Uneven(Contract, kind="unforeseen.uneven"):
    """Wait for very different times, or have a service work for them."""

    seconds: float
    url: str = ""


class LogLine(Contract, kind="unforeseen.log_line"):
    """Write a line by `logging` to a pipe that is read slowly."""

    path: str


class LargeResult(Contract, kind="unforeseen.large_result"):
    """Return a large value."""

    size: int


def _get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=60) as answer:
        answer.read()


@body(AskTwo)
def ask_two(job: AskTwo, context: Context) -> None:
    if job.only != "second":
        _get(job.first)
    if job.only != "first":
        _get(job.second)


@body(AskAgain)
def ask_again(job: AskAgain, context: Context) -> None:
    pause = 0.05
    while True:
        try:
            _get(job.url)
            return
        except HTTPError:
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(0.4, 2 * pause)


@body(AskSafely)
def ask_safely(job: AskSafely, context: Context) -> None:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # a default one reads all known authorities
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(f"https://127.0.0.1:{job.port}/", timeout=60, context=trusting) as answer:
        answer.read()


@body(AskAtOnce)
def ask_at_once(job: AskAtOnce, context: Context) -> None:
    async def ask() -> None:
        parts = urlsplit(job.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await reader.read()
        writer.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(ask() for _ in range(job.times)))

    asyncio.run(all_of_them())


@cache
def _channel(port: int) -> Any:
    import grpc

    return grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary("/shop/order")


@body(AskByGrpc)
def ask_by_grpc(job: AskByGrpc, context: Context) -> None:
    with _LOCK:
        call = _channel(job.port)
    call(b"", timeout=60)


@body(Upload)
def upload(job: Upload, context: Context) -> None:
    with urllib.request.urlopen(job.url, data=b"x" * job.size, timeout=60) as answer:
        answer.read()


@body(RedisSemaphore)
def redis_semaphore(job: RedisSemaphore, context: Context) -> None:
    server = redis_client()
    if job.how == "list":
        if server.set("shop:permits-made", "1", nx=True):
            server.rpush("shop:permits", *range(job.permits))
        permit = server.blpop("shop:permits", timeout=60)[1]
        time.sleep(job.seconds)
        server.rpush("shop:permits", permit)
        return
    while server.incr("shop:taken") > job.permits:
        server.decr("shop:taken")
        time.sleep(0.02)
    time.sleep(job.seconds)
    server.decr("shop:taken")


@body(RedisKeys)
def redis_keys(job: RedisKeys, context: Context) -> None:
    server = redis_client(job.url)
    names = [f"shop:{n}" for n in range(job.keys)]
    if job.at_once:
        server.mget(names)
        return
    for name in names:
        server.get(name)


@cache
def _two_connections() -> Any:
    import redis

    pool = redis.BlockingConnectionPool.from_url(
        os.environ["MILLPOND_BROKER_URL"], max_connections=2, timeout=60
    )
    return redis.Redis(connection_pool=pool)


@body(RedisPool)
def redis_pool(job: RedisPool, context: Context) -> None:
    with _LOCK:
        server = _two_connections()
    server.blpop("shop:nothing", timeout=job.seconds)


@body(TableLock)
def table_lock(job: TableLock, context: Context) -> None:
    connection = postgres_connection(job.url)
    with connection.transaction():
        connection.execute("lock table stock in exclusive mode")
        connection.execute("select pg_sleep(%s)", (job.seconds,))


@body(Deadlocks)
def deadlocks(job: Deadlocks, context: Context) -> None:
    import psycopg

    connection = postgres_connection(job.url)
    while True:
        with suppress(psycopg.errors.DeadlockDetected):
            with connection.transaction():
                for row in random.sample(range(4), 2):
                    connection.execute("update stock set n = n + 1 where id = %s", (row,))
                    connection.execute("select pg_sleep(%s)", (job.seconds,))
            return


@body(SyncRows)
def sync_rows(job: SyncRows, context: Context) -> None:
    path = f"{job.path}-{threading.get_native_id()}" if job.own else job.path
    database = getattr(_HERE, "database", None)
    if database is None:
        database = _HERE.database = sqlite3.connect(path, timeout=60, isolation_level=None)
        database.execute("pragma synchronous = full")
        database.execute("create table if not exists orders (n)")
    for n in range(10):
        database.execute("insert into orders values (?)", (n,))


class _Node:
    def __init__(self) -> None:
        self.itself, self.names = self, {str(n): [n] for n in range(5)}


@cache
def _picture() -> Any:
    from PIL import Image

    return Image.effect_noise((900, 900), 50)


@body(Computes)
def computes(job: Computes, context: Context) -> None:
    if job.how == "zlib":
        zlib.compress(os.urandom(500_000), 9)
    elif job.how == "hash":
        hashlib.sha256(b"x" * 30_000_000)
    elif job.how == "picture":
        with _LOCK:
            picture = _picture()
        picture.resize((700, 700), resample=1).rotate(20)
    elif job.how == "sqlite":
        with sqlite3.connect(":memory:") as database:
            database.execute(
                "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) "
                "select sum(i * i % 7) from n"
            ).fetchall()
    elif job.how == "own thread":
        thread = threading.Thread(target=_burn, args=(0.05,))
        thread.start()
        thread.join()
    elif job.how == "thread of a loop":
        asyncio.run(asyncio.to_thread(_burn, 0.05))
    elif job.how == "garbage":
        kept = [_Node() for _ in range(5_000)]
        gc.collect()
        del kept


def _burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(100))


@body(Shell)
def shell(job: Shell, context: Context) -> None:
    code = f"import time; end = time.process_time() + {job.seconds}\nwhile time.process_time() < end: pass"
    line = f"python3 -S -c '{code}' | cat"
    if job.how == "shell":
        subprocess.run(line, shell=True, check=True)
    elif job.how == "system":
        os.system(line)
    elif job.how == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=_burn, args=(job.seconds,))
        process.start()
        process.join()
    else:

        async def run() -> None:
            await (await asyncio.create_subprocess_shell(line)).wait()

        asyncio.run(run())


@body(Cached)
def cached(job: Cached, context: Context) -> None:
    with _LOCK:
        if "prices" not in _CACHE:
            time.sleep(job.fill_seconds)
            _CACHE["prices"] = 1.0
    time.sleep(job.seconds)


@body(Uneven)
def uneven(job: Uneven, context: Context) -> None:
    seconds = min(20 * job.seconds, job.seconds * random.paretovariate(1.5) / 3)
    if job.url:
        _get(f"{job.url}?items={int(seconds * 1000)}")
    else:
        time.sleep(seconds)


@body(LogLine)
def log_line(job: LogLine, context: Context) -> None:
    with _LOCK:
        if not _pipe_log.handlers:
            _pipe_log.addHandler(logging.FileHandler(job.path))
            _pipe_log.propagate = False
    _pipe_log.warning("an order came: %s", "x" * 4000)


_pipe_log = logging.getLogger("unforeseen.shop")


@body(LargeResult)
def large_result(job: LargeResult, context: Context) -> str:
    return "x" * job.size
