"""Kinds with the bottlenecks of everyday handlers: rate limits, DNS, locks, the disk, C code, asyncio."""

import asyncio
import fcntl
import hashlib
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

from kept_connections import postgres_connection

from millpond import Context, Contract, RetryLater, body


class Advisory(Contract, kind="everyday.advisory"):
    """An advisory lock of PostgreSQL, taken for a time."""

    url: str
    seconds: float


class Limited(Contract, kind="everyday.limited"):
    """Ask a service that answers 429, sleep as long as it says, and ask again; or be retried."""

    url: str
    retries: bool = False


class Resolve(Contract, kind="everyday.resolve"):
    """Resolve a name by a DNS server."""

    port: int
    connects: bool = False


class RecordLock(Contract, kind="everyday.record_lock"):
    """A record lock of a file (fcntl), taken for a time."""

    path: str
    seconds: float


class HoldsInterpreter(Contract, kind="everyday.holds_interpreter"):
    """Compute in C with the interpreter's lock held."""

    rounds: int


class ReleasesInterpreter(Contract, kind="everyday.releases_interpreter"):
    """Compute in C with the interpreter's lock released."""

    rounds: int


class Sync(Contract, kind="everyday.sync"):
    """Write a file of its own to the disk, and wait until it is there."""

    folder: str
    times: int


class Short(Contract, kind="everyday.short_program"):
    """Run a program that ends at once."""


class Gathers(Contract, kind="everyday.gathers"):
    """Ask a service in a loop of asyncio."""

    url: str


class Large(Contract, kind="everyday.large"):
    """Carry much, do little."""

    text: str
    seconds: float


@body(Advisory)
def advisory(job: Advisory, context: Context) -> None:
    connection = postgres_connection(job.url)
    connection.execute("select pg_advisory_lock(7)")
    connection.execute("select pg_sleep(%s)", (job.seconds,))
    connection.execute("select pg_advisory_unlock(7)")


@body(Limited, retries=1000, backoff_seconds=0.2, backoff_limit_seconds=1.0)
def limited(job: Limited, context: Context) -> None:
    while True:
        try:
            with urllib.request.urlopen(job.url, timeout=60) as answer:
                answer.read()
            return
        except HTTPError as error:
            if job.retries:
                raise RetryLater("the service answers 429") from error
            time.sleep(float(error.headers["Retry-After"]))


@body(Resolve)
def resolve(job: Resolve, context: Context) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(30)
        if job.connects:
            asked.connect(("127.0.0.1", job.port))
            asked.send(b"shop.example.org")
        else:
            asked.sendto(b"shop.example.org", ("127.0.0.1", job.port))
        asked.recvfrom(512)


@body(RecordLock)
def record_lock(job: RecordLock, context: Context) -> None:
    with Path(job.path).open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        time.sleep(job.seconds)


@body(HoldsInterpreter)
def holds_interpreter(job: HoldsInterpreter, context: Context) -> None:
    for _ in range(job.rounds):
        re.match(r"(a*)*b", "a" * 17)


@body(ReleasesInterpreter)
def releases_interpreter(job: ReleasesInterpreter, context: Context) -> None:
    hashlib.pbkdf2_hmac("sha256", b"pond", b"salt", job.rounds)


@body(Sync)
def sync(job: Sync, context: Context) -> None:
    path = Path(job.folder) / f"{os.getpid()}-{threading.get_native_id()}"
    with path.open("wb") as file:
        for _ in range(job.times):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())


@body(Short)
def short_program(job: Short, context: Context) -> None:
    subprocess.run(["true"], check=True)


@body(Gathers)
def gathers(job: Gathers, context: Context) -> None:
    async def ask() -> bytes:
        parts = urlsplit(job.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        found = await reader.read()
        writer.close()
        return found

    asyncio.run(ask())


@body(Large)
def large(job: Large, context: Context) -> None:
    time.sleep(job.seconds)
