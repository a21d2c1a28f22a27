"""Services that hold their clients up: by a token bucket, by failures, by a narrow line, by handshakes."""

import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from millpond.worker.local.valkey import run_server
from tests.harness.http_server import LocalServer, QuietHandler, run_http_server
from tests.harness.permits import Service, service
from tests.harness.tcp_proxy import proxy
from tests.scenarios.bottlenecks.services import Served


class _Queueing(LocalServer):
    """Answers `rate` requests a second; those beyond wait. A share of the answers is 503."""

    def __init__(self, rate: float, *, failing: float = 0.0, bytes_rate: float = 0.0) -> None:
        super().__init__(_Handler)
        self.rate, self.failing, self.bytes_rate = rate, failing, bytes_rate
        self._next, self._lock = 0.0, threading.Lock()

    def wait_for_turn(self, cost: float) -> None:
        """Wait until the requests before have been served."""
        with self._lock:
            self._next = max(self._next, time.monotonic()) + cost
            until = self._next
        time.sleep(max(0.0, until - time.monotonic()))


class _Handler(QuietHandler):
    server: _Queueing

    def do_GET(self) -> None:
        """Answer in turn."""
        if self.server.rate:
            self.server.wait_for_turn(1 / self.server.rate)
        self.answer(503 if random.random() < self.server.failing else 200)

    def do_POST(self) -> None:
        """Take the bytes of all clients one after the other, so many a second."""
        left = int(self.headers["content-length"])
        while left > 0:
            part = self.rfile.read(min(left, 16_384))
            left -= len(part) or left
            self.server.wait_for_turn(len(part) / self.server.bytes_rate)
        self.do_GET()


def token_bucket(_folder: Path) -> AbstractContextManager[LocalServer]:
    """Run a service that answers thirty requests a second and lets the others wait."""
    return run_http_server(_Queueing(30))


def half_failing(_folder: Path) -> AbstractContextManager[LocalServer]:
    """Run a service that answers forty requests a second, half of them with 503."""
    return run_http_server(_Queueing(40, failing=0.5))


def failing_for_all(_folder: Path) -> AbstractContextManager[LocalServer]:
    """Run a service that answers everybody at once, half of them with 503."""
    return run_http_server(_Queueing(0, failing=0.5))


def narrow_line(_folder: Path) -> AbstractContextManager[LocalServer]:
    """Run a service that receives four megabytes a second from all clients together."""
    return run_http_server(_Queueing(0, bytes_rate=4_000_000))


@contextmanager
def two_services(_folder: Path) -> Iterator[tuple[Service, Service]]:
    """Run a service for all and one that works on two requests at a time."""
    with service(64, 0.05) as first, service(2, 0.05) as second:
        yield first, second


@contextmanager
def far_redis(folder: Path) -> Iterator[str]:
    """Run a Redis server behind a network that takes four milliseconds there and back."""
    with run_server(folder / "far") as near, proxy(urlsplit(near.url).port or 0, 0.002) as far:
        yield near.url.replace(f":{urlsplit(near.url).port}/", f":{far.port}/")


@contextmanager
def slow_handshakes(folder: Path) -> Iterator[Served]:
    """Run a service that makes one TLS handshake at a time, slowly."""
    import trustme

    certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(certificates)
    server = socket.create_server(("127.0.0.1", 0), backlog=128)

    def answer() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with suppress(OSError):
                    time.sleep(0.04)
                    with certificates.wrap_socket(connection, server_side=True) as safe:
                        safe.recv(9_000)
                        safe.sendall(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok")

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield Served(server.getsockname()[1])
    finally:
        server.close()


@contextmanager
def grpc_server(_folder: Path) -> Iterator[Served]:
    """Run a gRPC server that works on two calls at a time."""
    import grpc

    def order(_request: bytes, _context: Any) -> bytes:
        time.sleep(0.05)
        return b""

    server = grpc.server(ThreadPoolExecutor(2))
    orders = {"order": grpc.unary_unary_rpc_method_handler(order)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop", orders),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Served(port)
    finally:
        server.stop(None)
