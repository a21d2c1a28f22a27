"""Kinds that wait for something: the bottlenecks of the scenarios."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request

import redis

from millpond import Context, Contract, RetryLater, body

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


class RedisLock(Contract, kind="bottleneck.redis_lock"):
    seconds: float


class Sqlite(Contract, kind="bottleneck.sqlite"):
    path: str
    seconds: float


class Child(Contract, kind="bottleneck.child"):
    seconds: float


class Fail(Contract, kind="bottleneck.fail"):
    seconds: float


class Retry(Contract, kind="bottleneck.retry"):
    seconds: float


@body(RedisLock)
def redis_lock(job: RedisLock, context: Context) -> None:
    client = redis.Redis.from_url(os.environ["MILLPOND_BROKER_URL"])
    with client, client.lock("shop:stock", timeout=60):
        time.sleep(job.seconds)


@body(Sqlite)
def write_sqlite(job: Sqlite, context: Context) -> None:
    database = sqlite3.connect(job.path, timeout=60, isolation_level=None)
    try:
        database.execute("begin immediate")
        time.sleep(job.seconds)
        database.execute("insert into orders values (1)")
        database.execute("commit")
    finally:
        database.close()


@body(Child)
def child(job: Child, context: Context) -> None:
    code = f"import time; end = time.process_time() + {job.seconds}\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-S", "-c", code], check=True)


@body(Fail)
def fail(job: Fail, context: Context) -> None:
    time.sleep(job.seconds)
    raise OSError("the service answers 500")


@body(Retry, retries=1000, backoff_seconds=0.01, backoff_limit_seconds=0.05)
def retry(job: Retry, context: Context) -> None:
    time.sleep(job.seconds)
    raise RetryLater("the service is busy")


class SlowSleep(Contract, kind="bottleneck.slow_sleep"):
    seconds: float


@body(SlowSleep)
def slow_sleep(job: SlowSleep, context: Context) -> None:
    time.sleep(job.seconds)
