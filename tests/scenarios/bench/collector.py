"""Receive spans by OTLP over HTTP and drop them: `python -m tests.scenarios.bench.collector PORT`."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class DropSpans(BaseHTTPRequestHandler):
    """Reads every request, and responds with 200."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read and drop the spans of a request."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), DropSpans).serve_forever()
