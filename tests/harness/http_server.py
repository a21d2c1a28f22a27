"""The base classes of the tests' HTTP servers, which listen on a free port of loopback."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

S = TypeVar("S", bound="LocalServer")


class LocalServer(ThreadingHTTPServer):
    """A server on a free port."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def address(self) -> str:
        """Return `host:port`."""
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """Return the URL to ask."""
        return f"http://{self.address}/"


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that sends each response in one segment, and logs nothing."""

    protocol_version = "HTTP/1.1"  # a connection may be used again
    disable_nagle_algorithm = True
    wbufsize = -1

    def answer(self, status: int, body: bytes = b"ok", **headers: str) -> None:
        """Send a response, if the client is still connected. `_` in the name of a header stands for `-`."""
        with suppress(OSError):
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def run_http_server(server: S) -> Iterator[S]:
    """Run a server in a thread for the length of a block."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
