"""An HTTP service that works on k requests at a time, as a dependency with a limited capacity does."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Service(ThreadingHTTPServer):
    """Answers after `seconds` of work, `permits` requests at a time; both may change while it runs.

    A request for `?items=N` takes `item_seconds` more for each of them.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, permits: int, seconds: float, item_seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seconds = seconds
        self.item_seconds = item_seconds
        self.gate = threading.Semaphore(permits)

    @property
    def address(self) -> str:
        """Return `host:port`."""
        host, port = self.server_address[:2]
        return f"{host}:{port}"  # type: ignore[str-bytes-safe]

    @property
    def url(self) -> str:
        """Return the URL to ask."""
        return f"http://{self.address}/"


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"  # a connection may be used again
    disable_nagle_algorithm = True
    wbufsize = -1  # the answer is one segment

    def do_GET(self) -> None:
        """Wait for a permit, work, answer."""
        items = int(self.path.partition("items=")[2] or 0)
        with self.server.gate:
            time.sleep(self.server.seconds + items * self.server.item_seconds)
        with suppress(OSError):
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def service(permits: int, seconds: float, item_seconds: float = 0.0) -> Iterator[Service]:
    """Run a service for the length of a block."""
    server = Service(permits, seconds, item_seconds)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
