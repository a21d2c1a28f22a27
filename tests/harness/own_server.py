"""Run a server that a test may kill, restart, starve and make a replica; it keeps its port and its folder."""

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import redis

READY_SECONDS = 30


@dataclass
class OwnServer:
    """One server; `lines` are of its configuration, `scheme` and `options` how a client reaches it."""

    binary: str
    folder: Path
    lines: Sequence[str] = ()
    port: int = 0
    scheme: str = "redis"
    options: dict[str, Any] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Return the URL of the server."""
        return f"{self.scheme}://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> Any:
        """Open a client of the server."""
        return redis.Redis.from_url(self.url, socket_timeout=5, **self.options)

    def start(self, *arguments: str) -> None:
        """Start it, again on the same port, and wait until it has loaded its data."""
        self.port = self.port or free_port()
        config = self.folder / f"{self.port}.conf"
        if not config.exists():  # a sentinel rewrites its own
            common = ["bind 127.0.0.1", f"dir {self.folder}", f"port {self.port}", 'save ""']
            config.write_text("\n".join([*common, f"logfile {self.port}.log", *self.lines, ""]))
        self.process = subprocess.Popen([self.binary, str(config), *arguments])
        deadline = monotonic() + READY_SECONDS
        while not self._answers():
            assert self.process.poll() is None, (self.folder / f"{self.port}.log").read_text()[-1000:]
            assert monotonic() < deadline, "the server does not answer"
            sleep(0.02)

    def kill(self) -> None:
        """Kill the server as a power cut would."""
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
def running(server: OwnServer, *arguments: str) -> Iterator[OwnServer]:
    """Run a server for the length of a block."""
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
