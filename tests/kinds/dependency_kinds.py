"""Kinds that ask a real dependency, one call or many for a task: more bottlenecks of the scenarios."""

import fcntl
import queue
import smtplib
import socket
import subprocess
import threading
import time
from email.message import EmailMessage
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from kept_connections import postgres_connection

from millpond import Context, Contract, body

_HERE = threading.local()
_POOL: "queue.Queue[object]" = queue.Queue()
_POOL_LOCK = threading.Lock()
_TWO = threading.Semaphore(2)


class HotRow(Contract, kind="dependency.hot_row"):
    """Update one row of PostgreSQL and hold it for a while; row 0 is the task's own."""

    url: str
    row: int
    seconds: float


class PooledQuery(Contract, kind="dependency.pooled_query"):
    """Ask PostgreSQL by one of two connections that the slots of a process share."""

    url: str
    seconds: float


class LimitedQuery(Contract, kind="dependency.limited_query"):
    """Ask PostgreSQL as a user that may have few connections, and try again until there is one."""

    url: str
    seconds: float


class Mail(Contract, kind="dependency.mail"):
    """Send one mail by a connection of its own."""

    port: int


class Chatty(Contract, kind="dependency.chatty"):
    """Ask a service once for each of `items`, or for all in one call."""

    url: str
    items: int
    at_once: bool = False


class Bulk(Contract, kind="dependency.bulk"):
    """Ask a service in one call for a list of items."""

    url: str
    items: list[int]


class Named(Contract, kind="dependency.named"):
    """Ask a service in one call that the handler names, with its number of items."""

    url: str
    items: int


class FileLock(Contract, kind="dependency.file_lock"):
    """Keep the lock of a file for a while."""

    path: str
    seconds: float


class TwoAtOnce(Contract, kind="dependency.two_at_once"):
    """Keep one of two permits of the process for a while."""

    seconds: float


class WaitingChild(Contract, kind="dependency.waiting_child"):
    """Wait for a child program that waits."""

    seconds: float


@body(HotRow)
def hot_row(job: HotRow, context: Context) -> None:
    connection = postgres_connection(job.url)
    row = job.row or threading.get_native_id() % 1000
    with connection.transaction():
        connection.execute("update stock set n = n - 1 where id = %s", (row,))
        connection.execute("select pg_sleep(%s)", (job.seconds,))


@body(PooledQuery)
def pooled_query(job: PooledQuery, context: Context) -> None:
    import psycopg

    with _POOL_LOCK:
        if not hasattr(_POOL, "made"):
            _POOL.made = True  # type: ignore[attr-defined]
            for _ in range(2):
                _POOL.put(psycopg.connect(job.url, autocommit=True))
    connection = _POOL.get()
    try:
        connection.execute("select pg_sleep(%s)", (job.seconds,))  # type: ignore[attr-defined]
    finally:
        _POOL.put(connection)


@body(LimitedQuery)
def limited_query(job: LimitedQuery, context: Context) -> None:
    import psycopg

    while True:
        try:
            with psycopg.connect(job.url, autocommit=True) as connection:
                connection.execute("select pg_sleep(%s)", (job.seconds,))
            return
        except psycopg.OperationalError:
            time.sleep(0.02)


@body(Mail)
def mail(job: Mail, context: Context) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.org", "ann@example.org", "Hello"
    message.set_content("text")
    with smtplib.SMTP("127.0.0.1", job.port, timeout=60) as server:
        server.send_message(message)


def _ask(url: str, path: str) -> None:
    known = getattr(_HERE, "http", None)
    if known is None:
        parts = urlsplit(url)
        known = _HERE.http = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        known.connect()
        known.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    known.request("GET", path)
    known.getresponse().read()


@body(Chatty)
def chatty(job: Chatty, context: Context) -> None:
    if job.at_once:
        _ask(job.url, f"/?items={job.items}")
        return
    for n in range(job.items):
        _ask(job.url, f"/{n}")


@body(Bulk)
def bulk(job: Bulk, context: Context) -> None:
    _ask(job.url, f"/?items={len(job.items)}")


@body(Named)
def named(job: Named, context: Context) -> None:
    with context.calling("crm", items=job.items):
        _ask(job.url, f"/?items={job.items}")


@body(FileLock)
def file_lock(job: FileLock, context: Context) -> None:
    with Path(job.path).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        time.sleep(job.seconds)


@body(TwoAtOnce)
def two_at_once(job: TwoAtOnce, context: Context) -> None:
    with _TWO:
        time.sleep(job.seconds)


@body(WaitingChild)
def waiting_child(job: WaitingChild, context: Context) -> None:
    subprocess.run(["sleep", str(job.seconds)], check=True)
