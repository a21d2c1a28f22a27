"""More services for the bottlenecks: one with a rate limit, one that thrashes, a DNS server, a small disk."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.harness.http_server import LocalServer, QuietHandler, run_http_server
from tests.harness.mail_sink import Sink, mail_sink


class RateLimited(LocalServer):
    """Answers so many requests a second, and 429 with Retry-After beyond."""

    def __init__(self, rate: float) -> None:
        super().__init__(_Limiting)
        self.rate, self._next, self._lock = rate, time.monotonic(), threading.Lock()

    def takes(self) -> bool:
        """True if a request may be answered now."""
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now - 0.1)
            if self._next > now:
                return False
            self._next += 1 / self.rate
            return True


class Thrashing(LocalServer):
    """Answers the slower the more requests it has at once: more of them get less done."""

    def __init__(self, seconds: float) -> None:
        super().__init__(_Thrashing)
        self.seconds, self.at_once, self.lock = seconds, 0, threading.Lock()


class _Limiting(QuietHandler):
    server: RateLimited

    def do_GET(self) -> None:
        """Answer at once, or refuse."""
        if self.server.takes():
            self.answer(200)
        else:
            self.answer(429, retry_after="0.3")


class _Thrashing(QuietHandler):
    server: Thrashing

    def do_GET(self) -> None:
        """Work for a time that grows faster than the number of requests at once."""
        with self.server.lock:
            self.server.at_once += 1
        done = 0.0
        while done < self.server.seconds:
            time.sleep(0.005)
            done += 0.005 / self.server.at_once**1.3
        with self.server.lock:
            self.server.at_once -= 1
        self.answer(200)


@dataclass(frozen=True)
class Served:
    """A service that is no HTTP server: where it listens."""

    port: int

    @property
    def address(self) -> str:
        """Return `host:port`."""
        return f"127.0.0.1:{self.port}"


def rate_limited(_folder: Path) -> AbstractContextManager[LocalServer]:
    """Run a service that answers fifteen requests a second."""
    return run_http_server(RateLimited(15))


def thrashing(_folder: Path) -> AbstractContextManager[LocalServer]:
    """Run a service that thrashes."""
    return run_http_server(Thrashing(0.02))


@contextmanager
def names(_folder: Path) -> Iterator[Served]:
    """Run a DNS server that answers one question at a time, slowly."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer() -> None:
            with suppress(OSError):
                while True:
                    asked, client = server.recvfrom(512)
                    if not asked:
                        return
                    time.sleep(0.03)
                    server.sendto(asked, client)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield Served(server.getsockname()[1])
        server.sendto(b"", server.getsockname())
        thread.join(5)


@contextmanager
def small_disk(folder: Path) -> Iterator[str]:
    """Mount a file system of one megabyte that is full."""
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        with suppress(OSError), (small / "fills").open("wb") as file:
            file.write(b"x" * 2_000_000)
        yield str(small)
    finally:
        subprocess.run(["umount", "-l", small], check=True)


@contextmanager
def disk(folder: Path) -> Iterator[str]:
    """Give a folder on the disk."""
    (folder / "written").mkdir()
    yield str(folder / "written")


@contextmanager
def slow_pipe(folder: Path) -> Iterator[str]:
    """Read a pipe slowly, 200 kB a second."""
    path, stop = folder / "log-pipe", threading.Event()
    os.mkfifo(path)

    def read() -> None:
        with path.open("rb", buffering=0) as pipe:
            while not stop.wait(0.02):
                pipe.read(4_000)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    writing = os.open(path, os.O_RDWR)  # so that the reader does not wait for a first writer
    try:
        yield str(path)
    finally:
        stop.set()
        thread.join(5)
        os.close(writing)


class _Greylisting(Sink):
    async def handle_RCPT(self, *_: object) -> str:
        return "451 4.7.1 Greylisted, please try again later"


@contextmanager
def greylisting(_folder: Path) -> Iterator[Sink]:
    """Run a mail server that asks every client to come again."""
    with mail_sink() as sink:
        sink.__class__ = _Greylisting
        yield sink
