"""An HTTP service that works on k requests at a time, as a dependency with a limited capacity does."""

import threading
import time
from contextlib import AbstractContextManager

from tests.harness.http_server import LocalServer, QuietHandler, run_http_server


class Service(LocalServer):
    """Answers after `seconds` of work, `permits` requests at a time; both may change while it runs.

    A request for `?items=N` takes `item_seconds` more for each of them.
    """

    def __init__(self, permits: int, seconds: float, item_seconds: float = 0.0) -> None:
        super().__init__(_Handler)
        self.seconds = seconds
        self.item_seconds = item_seconds
        self.gate = threading.Semaphore(permits)


class _Handler(QuietHandler):
    server: Service

    def do_GET(self) -> None:
        """Wait for a permit, work for the configured time, and respond."""
        items = int(self.path.partition("items=")[2] or 0)
        with self.server.gate:
            time.sleep(self.server.seconds + items * self.server.item_seconds)
        self.answer(200)


def service(permits: int, seconds: float, item_seconds: float = 0.0) -> AbstractContextManager[Service]:
    """Run a service for the length of a block."""
    return run_http_server(Service(permits, seconds, item_seconds))
