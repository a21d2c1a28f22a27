"""A Redis-like server of one test, which may be killed and started again on its port and its data."""

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import redis

READY_SECONDS = 60


@dataclass
class OwnServer:
    """One server. `lines` are lines of its configuration.

    `scheme` is that of its URL, and `options` are those of redis-py's client. Port 0 is chosen at the start.
    """

    binary: str
    folder: Path
    lines: Sequence[str] = ()
    port: int = 0
    scheme: str = "redis"
    options: dict[str, Any] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"{self.scheme}://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> Any:
        """A new client of the server."""
        return redis.Redis.from_url(self.url, socket_timeout=5, **self.options)

    def start(self, *arguments: str) -> None:
        """Start the server, and wait until it has loaded its data and replies."""
        self.port = self.port or free_port()
        config = self.folder / f"{self.port}.conf"
        if not config.exists():  # a sentinel has written to it, at its last start
            common = ["bind 127.0.0.1", f"dir {self.folder}", f"port {self.port}", 'save ""']
            config.write_text("\n".join([*common, f"logfile {self.port}.log", *self.lines, ""]))
        self.process = subprocess.Popen([self.binary, str(config), *arguments])
        deadline = monotonic() + READY_SECONDS
        while not self._answers():
            assert self.process.poll() is None, (self.folder / f"{self.port}.log").read_text()[-1000:]
            assert monotonic() < deadline, "the server does not answer"
            sleep(0.02)

    def kill(self) -> None:
        """Kill the server with SIGKILL, if it was started."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def _answers(self) -> bool:
        client = self.client
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


@contextmanager
def run_own_server(server: OwnServer, *arguments: str) -> Iterator[OwnServer]:
    """Start a server for the length of a block, and kill it at the end. `arguments` are of its command."""
    server.folder.mkdir(parents=True, exist_ok=True)
    server.start(*arguments)
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
