"""Health and metrics over HTTP: GET /live, /ready and /working respond 200 or 503 with reasons, and /metrics.

The supervisor serves its processes, from the same files as `millpond health`. It listens on loopback by
default, because the responses name pools and process ids.
"""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps

from millpond.tasks.errors import StartError
from millpond.tasks.process.health import QUESTIONS, judge_health
from millpond.tasks.process.heartbeat_file import read_heartbeats
from millpond.tasks.process.prometheus_text import CONTENT_TYPE, format_metrics
from millpond.worker.report.metrics import supervisor_metrics

logger = logging.getLogger("millpond.health")

#: The longest time that a request may take, in seconds.
_REQUEST_SECONDS = 5.0


@contextmanager
def serve_health(address: str, port: int | None, *, services: Sequence[str]) -> Iterator[int | None]:
    """Serve for the length of a block, unless `port` is None, and yield the port. Port 0 takes a free one.

    Raises `StartError` if it cannot listen.
    """
    if port is None:
        yield None
        return
    try:
        server = ThreadingHTTPServer((address, port), _handler_class(services))
    except OSError as error:
        raise StartError(
            f"health cannot listen on {address}:{port}: {error.strerror}. Set another MILLPOND_HEALTH_PORT"
        ) from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="millpond-health-page", daemon=True).start()
    logger.info("health checks at http://%s:%d/ready", *server.server_address[:2])
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def _handler_class(services: Sequence[str]) -> type[BaseHTTPRequestHandler]:
    """Return the class that handles requests about these services."""
    supervisor = os.getpid()

    class HealthHandler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS

        def do_GET(self) -> None:
            """Answer one of the questions of a health check, or with the metrics."""
            question = self.path.strip("/")
            if question == "metrics":
                self._send_response(
                    200, format_metrics(supervisor_metrics(services, supervisor)), CONTENT_TYPE
                )
                return
            if question not in QUESTIONS:
                self._send_response(
                    404, _encode_json({"ask": [f"/{each}" for each in (*QUESTIONS, "metrics")]})
                )
                return
            health = judge_health([p for name in services for p in read_heartbeats(name, pid=supervisor)])
            faults = health.faults(question)
            self._send_response(
                503 if faults else 200, _encode_json({question: not faults, "faults": faults})
            )

        do_HEAD = do_GET

        def _send_response(self, status: int, body: bytes, content_type: str = "application/json") -> None:
            """Send a response, without a body if the request is HEAD."""
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: health checks come every few seconds."""

    return HealthHandler


def _encode_json(value: object) -> bytes:
    return dumps(value).encode() + b"\n"
