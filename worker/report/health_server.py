"""Serve health checks and metrics over HTTP: GET /live, /ready and /working, and /metrics.

A health check responds 200, or 503 with the faults. The supervisor serves this for its processes, from the
same files as `millpond health`. It listens on loopback by default, because the responses name pools and
process ids.
"""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps
from urllib.parse import urlsplit

from millpond.tasks.errors import StartError
from millpond.tasks.process.health import HEALTH_CHECKS, judge_health
from millpond.tasks.process.heartbeat_file import read_heartbeats
from millpond.tasks.process.prometheus_text import CONTENT_TYPE, format_metrics
from millpond.worker.report.metrics import supervisor_metrics

logger = logging.getLogger("millpond.health")

#: The longest time that a request may take, in seconds.
_REQUEST_SECONDS = 5.0


@contextmanager
def serve_health(address: str, port: int | None, *, services: Sequence[str]) -> Iterator[int | None]:
    """Serve the health of `services` for the length of a `with` block, and yield the port.

    Port 0 takes a free port. With None nothing is served. Raises `StartError` if it cannot listen.
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
    supervisor_pid = os.getpid()

    class HealthHandler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS

        def do_GET(self) -> None:
            """Send a response, without its body if the request is HEAD."""
            resource = urlsplit(self.path).path.strip("/")
            status, content_type, body = _make_response(resource, services, supervisor_pid)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: health checks come every few seconds."""

    return HealthHandler


def _make_response(resource: str, services: Sequence[str], supervisor_pid: int) -> tuple[int, str, bytes]:
    """Return the status, the content type and the body of a response.

    `resource` is one of the health checks or `metrics`. Others get 404, and the list of paths.
    """
    if resource == "metrics":
        return 200, CONTENT_TYPE, format_metrics(supervisor_metrics(services, supervisor_pid))
    if resource not in HEALTH_CHECKS:
        return _json_response(404, {"ask": [f"/{name}" for name in (*HEALTH_CHECKS, "metrics")]})
    processes = [process for name in services for process in read_heartbeats(name, pid=supervisor_pid)]
    faults = judge_health(processes).faults(resource)
    return _json_response(503 if faults else 200, {resource: not faults, "faults": faults})


def _json_response(status: int, value: object) -> tuple[int, str, bytes]:
    return status, "application/json", dumps(value).encode() + b"\n"
