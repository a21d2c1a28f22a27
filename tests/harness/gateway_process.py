"""Run `millpond gateway` in a process of its own, and send HTTP requests to it."""

import http.client
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from millpond.tasks.settings import Settings, child_environment

COMMAND = [sys.executable, "-c", "import sys, millpond; sys.exit(millpond.main())", "gateway"]
JSON = "application/json"
NDJSON = "application/x-ndjson"


@dataclass(frozen=True)
class Answer:
    """A response of the gateway."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.text)

    @property
    def lines(self) -> list[Any]:
        """Return the body as a JSON value a line."""
        return [json.loads(line) for line in self.text.splitlines()]


@dataclass(frozen=True)
class GatewayProcess:
    """A running gateway. `token` authenticates the requests, None if they have no token."""

    url: str
    process: "subprocess.Popen[str]"
    log: Path
    token: str | None = None

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection."""
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)

    def ask(
        self, method: str, path: str, body: Any = None, *, media: str = JSON, **headers: str | None
    ) -> Answer:
        """Send one request over a new connection. A body that is neither text nor bytes is sent as JSON.

        A header that is None is not sent. `_` in its name stands for `-`.
        """
        sent = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        named = {"content-type": None if body is None else media, **headers}
        if self.token is not None:
            named.setdefault("authorization", f"Bearer {self.token}")
        connection = self.connect()
        try:
            connection.request(
                method, path, sent, {k.replace("_", "-"): v for k, v in named.items() if v is not None}
            )
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def ask_as(self, token: str | None, method: str, path: str, body: Any = None) -> Answer:
        """Make one request with a token, or without one for None; a body that is a text is sent as lines."""
        bearer = None if token is None else f"Bearer {token}"
        media = NDJSON if isinstance(body, str) else JSON
        return self.ask(method, path, body, media=media, authorization=bearer)

    def begin_stream(self) -> http.client.HTTPConnection:
        """Begin a stream of tasks of unknown length; its body is sent in chunks (`chunk`)."""
        connection = self.connect()
        connection.putrequest("POST", "/send")
        connection.putheader("Content-Type", NDJSON)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        return connection

    def send(self, n: int = 7, query: str = "") -> Answer:
        """Send a task `squares.square`."""
        return self.ask("POST", f"/send/squares.square{query}", {"n": n})

    def stop(self, *, within_seconds: float = 20) -> int:
        """Terminate the gateway with SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_seconds)


@contextmanager
def run_gateway(settings: Settings, *, token: str | None = None) -> Iterator[GatewayProcess]:
    """Run a gateway with these settings on a free port for the length of a block."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0"],
            env={**child_environment(settings), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("The gateway is at http://"), Path(log.name).read_text()
            yield GatewayProcess(said.split()[4].rstrip("/,"), process, Path(log.name), token)
        finally:
            process.kill()
            process.communicate()


def ndjson_body(*lines: dict[str, Any] | str) -> str:
    """Return the NDJSON body of these lines. A line that is a text is not encoded."""
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)


def chunk(text: str) -> bytes:
    """Return a text as a chunk of a body of unknown length; an empty text ends the body."""
    return f"{len(text.encode()):x}\r\n{text}\r\n".encode()


def square(n: int, **options: Any) -> dict[str, Any]:
    """Return the line of a task `squares.square`, with these options of sending."""
    return {"kind": "squares.square", "task": {"n": n}, **options}
