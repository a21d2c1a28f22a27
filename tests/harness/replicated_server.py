"""Run a master with its replica, and a sentinel over them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from tests.harness.own_server import OwnServer, free_port, run_own_server


@dataclass(frozen=True)
class Replicated:
    """The three servers, and the URL by which clients find the master."""

    master: OwnServer
    replica: OwnServer
    sentinel: OwnServer
    #: The name that the sentinel has for the master.
    name: str = "orders"

    @property
    def url(self) -> str:
        """Return the URL of the sentinel."""
        return f"sentinel://127.0.0.1:{self.sentinel.port}/{self.name}/0"


def is_online(server: OwnServer) -> bool:
    """True if the server is a master and its replica has caught up."""
    try:
        found = server.client.info("replication")
    except RedisError:
        return False
    return found["role"] == "master" and found.get("slave0", {}).get("state") == "online"


@contextmanager
def run_replicated(binary: str, folder: Path) -> Iterator[Replicated]:
    """Run the three servers for the length of a block."""
    name = Replicated.name
    lines = ["appendonly yes", "appendfsync always", "repl-diskless-sync-delay 0"]
    with ExitStack() as stack:
        master = stack.enter_context(run_own_server(OwnServer(binary, folder / "master", lines)))
        follow = [*lines, f"replicaof 127.0.0.1 {master.port}"]
        replica = stack.enter_context(run_own_server(OwnServer(binary, folder / "replica", follow)))
        watch = [
            f"sentinel monitor {name} 127.0.0.1 {master.port} 1",
            f"sentinel down-after-milliseconds {name} 2000",
            f"sentinel failover-timeout {name} 4000",
        ]
        sentinel = OwnServer(binary, folder / "sentinel", watch, port=free_port())
        stack.enter_context(run_own_server(sentinel, "--sentinel"))
        yield Replicated(master, replica, sentinel)
