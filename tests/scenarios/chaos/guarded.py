"""A broker of three servers: a master, a replica that may lag behind, and a sentinel that promotes it."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import sleep, time
from typing import Any

from redis.exceptions import RedisError

from millpond.worker.local.valkey import embedded_binary
from tests.harness.own_server import OwnServer
from tests.harness.waiting import wait_until
from tests.scenarios.chaos.server import free_port

MASTER = "chaos"
_WAIT_SECONDS = 60.0

#: So long that the sentinel never takes a slow master for a dead one: it fails over when it is told to.
_DOWN_AFTER_MS = 600_000
#: Longer than a replica lags. After this time the sentinel would make it follow its master again.
_FAILOVER_MS = 30_000
#: How often the sentinel asks the servers for their state. Its default is ten seconds.
_LOOKS_EVERY_MS = 500


class GuardedBroker:
    """The three servers, which are started when this is created. `url` is that of the sentinel."""

    def __init__(self, folder: Path) -> None:
        binary = embedded_binary()
        self.master, self.replica = (
            OwnServer(
                binary, folder / name, ["appendonly yes", "repl-diskless-sync-delay 0"], port=free_port()
            )
            for name in ("one", "two")
        )
        self.sentinel = OwnServer(
            binary,
            folder / "sentinel",
            [
                f"sentinel monitor {MASTER} 127.0.0.1 {self.master.port} 1",
                f"sentinel down-after-milliseconds {MASTER} {_DOWN_AFTER_MS}",
                f"sentinel failover-timeout {MASTER} {_FAILOVER_MS}",
            ],
            port=free_port(),
        )
        for server in (self.master, self.replica, self.sentinel):
            server.folder.mkdir(parents=True)
        self.master.start()
        self._follow()
        self.sentinel.start("--sentinel")
        self._asked("SENTINEL", "DEBUG", "info-period", str(_LOOKS_EVERY_MS))
        self.url = f"sentinel://127.0.0.1:{self.sentinel.port}/{MASTER}/0"
        _until(self._knows_the_replica)

    def fail_over(self, lag_seconds: float) -> tuple[float, float]:
        """Cut the replica off for `lag_seconds`, kill the master, and make the sentinel promote the replica.

        The killed server is started again as a replica. Return the start and the end of the time whose writes
        were lost.
        """
        since, written = time(), int(self.master.client.info("replication")["master_repl_offset"])
        _until(lambda: int(self.replica.client.info("replication")["slave_repl_offset"]) >= written)
        # A replica of a closed port keeps its data, as one behind a broken network does.
        self.replica.client.execute_command("REPLICAOF", "127.0.0.1", 1)
        sleep(lag_seconds)
        self.master.kill()
        until = time()
        _until(lambda: self._asked("SENTINEL", "FAILOVER", MASTER))
        _until(lambda: self.replica.client.info("replication")["role"] == "master")
        self.master, self.replica = self.replica, self.master
        _until(lambda: self._master_port() == self.master.port)
        self._follow()
        _until(self._knows_the_replica)
        return since, until

    def kill(self) -> None:
        """Kill all servers."""
        for server in (self.sentinel, self.master, self.replica):
            server.kill()

    def _follow(self) -> None:
        self.replica.start("--replicaof", "127.0.0.1", str(self.master.port))
        _until(self._has_caught_up)

    def _has_caught_up(self) -> bool:
        found = self.master.client.info("replication")
        followers = [found[name] for name in found if name.startswith("slave") and name[5:].isdigit()]
        return any(each["port"] == self.replica.port and each["state"] == "online" for each in followers)

    def _master_port(self) -> int:
        return int(self._asked("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])

    def _knows_the_replica(self) -> bool:
        """True if the sentinel knows the replica, with a connection to its master: it could promote it."""
        for each in self._asked("SENTINEL", "REPLICAS", MASTER):
            told = each if isinstance(each, dict) else dict(zip(each[::2], each[1::2], strict=True))
            told = {_text(name): _text(value) for name, value in told.items()}
            if int(told["port"]) == self.replica.port:
                return told["flags"] == "slave" and told["master-link-status"] == "ok"
        return False

    def _asked(self, *words: str) -> Any:
        return self.sentinel.client.execute_command(*words)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _until(is_so: Callable[[], object]) -> None:
    """Wait until a condition of the servers holds. While one of them is unreachable it does not."""

    def holds() -> object:
        with suppress(RedisError, OSError):
            return is_so()
        return False

    wait_until(holds, _WAIT_SECONDS, "the servers under test do not agree on a master", every_seconds=0.02)
