"""Abuse the gateway with one token beside a well-behaved client with another, in turns with quiet times.

The client repeatedly sends a tracked task, looks it up and asks whether the gateway is ready, over one
connection and in a process of its own. Each abuse has a process too, so that the client does not wait for an
abuser's interpreter. The abusers run at the lowest priority, so that they take no processor time from the
gateway.

With the time of each request the processor time is recorded that the gateway spent meanwhile, on this request
and on those that it served before it. It does not depend on other load of the machine.
"""

import json
import multiprocessing
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit

import psutil

from millpond.broker import limits
from millpond.broker.connection import connect
from millpond.producer.gateway.tokens import hash_token
from millpond.tasks.settings import Gateway, GatewayToken, Settings
from millpond.worker.local.valkey import embedded_binary, run_server
from tests.harness.background import repeating
from tests.harness.gateway_process import GatewayProcess, run_gateway

#: The memory of the gateway's container (docker-compose.yml).
CONTAINER_BYTES = 512 * 1024**2
WAITING = 100_000
ABUSER, CLIENT = "abuser", "client"
_JSON = "Content-Type: application/json"
_SPAWN = multiprocessing.get_context("spawn")


@dataclass
class Abused:
    """The client's requests in quiet and in abused times, and the most memory of the gateway.

    Each request is its time and the gateway's processor time meanwhile, both in ms. `failed` is the number of
    requests without the expected response.
    """

    quiet: list[tuple[float, float]] = field(default_factory=list)
    abused: list[tuple[float, float]] = field(default_factory=list)
    failed: int = 0
    most_bytes: int = 0

    def p99s(self, which: int) -> tuple[float, float]:
        """Return p99 in quiet and in abused times: of the requests (`which` 0), or of processor times (1)."""
        quiet, abused = ([each[which] for each in some] for some in (self.quiet, self.abused))
        return p99(quiet), p99(abused)


def p99(some: list[float]) -> float:
    """Return the 99th percentile."""
    return quantiles(some, n=100)[98]


def abused(folder: Path, *, seconds: float, turns: int = 6) -> Abused:
    """Run `turns` quiet and abused times in turns, `seconds` in all."""
    seen = Abused()
    with ExitStack() as stack:
        server = stack.enter_context(run_server(folder, binary=embedded_binary()))
        tokens = tuple(
            GatewayToken(name=name, hash=hash_token(name), kinds=("squares.*",)) for name in (ABUSER, CLIENT)
        )
        settings = Settings(broker_url=server.url, gateway=Gateway(tokens=tokens))
        _fill(server.url)
        gateway = stack.enter_context(run_gateway(settings))
        stack.enter_context(_watched(gateway, seen))
        pid = gateway.process.pid
        _client(gateway.url, pid, 2.0)  # warm
        for turn in range(turns):
            if turn % 2:
                with _abuses(gateway.url):
                    time.sleep(1.0)
                    took, failed = _measured(gateway.url, pid, seconds / turns)
                seen.abused += took
                seen.failed += failed
            else:
                took, failed = _measured(gateway.url, pid, seconds / turns)
                seen.quiet += took
                seen.failed += failed
    return seen


def _fill(url: str) -> None:
    """Put many tasks on the queue, so that a look-up of an unknown task has something to search."""
    store = connect(url)
    limits.declare_limits(store, "default", {"bound": 10 * WAITING}, authoritative=True)
    message = json.dumps({"body": "", "headers": {"id": "waits", "task": "squares.square"}, "properties": {}})
    for _ in range(WAITING // 1000):
        store.client.lpush("default", *[message] * 1000)
    store.close()


def _watched(gateway: GatewayProcess, seen: Abused) -> AbstractContextManager[None]:
    process = psutil.Process(gateway.process.pid)

    def watch() -> None:
        seen.most_bytes = max(seen.most_bytes, process.memory_info().rss)

    return repeating(watch, 0.1)


# The well-behaved client
# ------------------------------------------------------------------------------------------


def _measured(url: str, gateway: int, seconds: float) -> tuple[list[tuple[float, float]], int]:
    with _SPAWN.Pool(1) as pool:
        return pool.apply(_client, (url, gateway, seconds))


def _client(url: str, gateway: int, seconds: float) -> tuple[list[tuple[float, float]], int]:
    """Send requests for `seconds`, and return them and the number of failures, as `Abused` has them."""
    took: list[tuple[float, float]] = []
    processor_clock = (~gateway << 3) | 2  # clock_getcpuclockid(3)
    failed, until = 0, time.monotonic() + seconds
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    headers = {"Authorization": f"Bearer {CLIENT}", "Content-Type": "application/json"}

    def ask(method: str, path: str, body: str | None, expected: int) -> str:
        nonlocal failed
        started, spent = time.perf_counter(), time.clock_gettime(processor_clock)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
            failed += answer.status != expected
            return answer.headers.get("Location") or "/health/live"
        except OSError:
            connection.close()
            failed += 1
            return "/health/live"
        finally:
            cost = time.clock_gettime(processor_clock) - spent
            took.append((1000 * (time.perf_counter() - started), 1000 * cost))

    while time.monotonic() < until:
        where = ask("POST", "/send/squares.square?track=true", '{"n": 7}', 202)
        ask("GET", where, None, 200)
        ask("GET", "/health/ready", None, 200)
        time.sleep(0.02)
    connection.close()
    return took, failed


# The abuses
# -------------------------------------------------------------------------------------------------------


@contextmanager
def _abuses(url: str) -> Iterator[None]:
    stop = _SPAWN.Event()
    processes = [
        _SPAWN.Process(target=_repeat, args=(abuse, url, stop), daemon=True)
        for abuse in (endless_header, silent, slow_bodies, look_ups, cancellations, batches, streams)
    ]
    for each in processes:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in processes:
            each.kill()  # some wait for the gateway
        for each in processes:
            each.join()


def _repeat(abuse: Callable[[str, Event], None], url: str, stop: Event) -> None:
    os.nice(19)
    while not stop.is_set():
        with suppress(OSError):
            abuse(url, stop)


def _open(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname or "", where.port or 0), timeout=10)


def _head(path: str, *lines: str) -> bytes:
    head = (f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {ABUSER}", *lines, "", "")
    return "\r\n".join(head).encode()


def endless_header(url: str, stop: Event) -> None:
    """Send a header line without end."""
    with _open(url) as open_:
        open_.sendall(b"POST /send HTTP/1.1\r\nX-Long: ")
        while not stop.is_set():
            open_.sendall(b"a" * 65_536)


def silent(url: str, stop: Event) -> None:
    """Open a thousand connections and send nothing."""
    with ExitStack() as open_:
        for _ in range(1_000):
            open_.enter_context(_open(url))
        stop.wait(2)


def slow_bodies(url: str, stop: Event) -> None:
    """Announce five hundred bodies and send a byte a second of each."""
    with ExitStack() as stack:
        some = [stack.enter_context(_open(url)) for _ in range(500)]
        for each in some:
            each.sendall(_head("/send/squares.square", _JSON, "Content-Length: 1000"))
        for _ in range(5):
            if stop.wait(1):
                return
            for each in some:
                with suppress(OSError):
                    each.sendall(b" ")


def _ask(url: str, method: str, path: str) -> None:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request(method, path, headers={"Authorization": f"Bearer {ABUSER}"})
    connection.getresponse().read()
    connection.close()


def _at_once(url: str, stop: Event, method: str, path: Callable[[], str], count: int) -> None:
    def again() -> None:
        while not stop.is_set():
            with suppress(OSError):
                _ask(url, method, path())

    threads = [threading.Thread(target=again) for _ in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def look_ups(url: str, stop: Event) -> None:
    """Look up unknown tasks."""
    _at_once(url, stop, "GET", lambda: f"/tasks/{ABUSER}:{random.random()}", 8)


def cancellations(url: str, stop: Event) -> None:
    """Cancel unknown tasks."""
    _at_once(url, stop, "POST", lambda: f"/tasks/{ABUSER}:{random.random()}/cancel", 8)


def batches(url: str, stop: Event) -> None:
    """Open batches."""
    _at_once(url, stop, "POST", lambda: "/batches", 2)


def streams(url: str, stop: Event) -> None:
    """Keep 64 streams of tasks open, each with a line that does not end."""
    media = "Content-Type: application/x-ndjson"
    with ExitStack() as stack:
        some = [stack.enter_context(_open(url)) for _ in range(64)]
        for each in some:
            each.sendall(_head("/send", media, "Transfer-Encoding: chunked"))
        while not stop.wait(0.2):
            for each in some:
                with suppress(OSError):
                    each.sendall(b"2000\r\n" + b"a" * 8192 + b"\r\n")
