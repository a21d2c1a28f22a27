"""The server under test. It can be killed and started again at its address, with or without its last writes.

Its data can be copied and restored, its file truncated, and its clock set.
"""

import os
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from time import time

from redis.exceptions import RedisError

from millpond.broker.connection import connect
from millpond.broker.server import is_reachable
from millpond.worker.local.valkey import embedded_binary
from millpond.worker.supervise.parent_death import with_parent_death_signal
from tests.harness.own_server import free_port
from tests.harness.waiting import wait_until

_READY_SECONDS = 60.0


class Broker:
    """A Valkey with an append-only file, which `fsync` syncs before each reply (`always`) or once a second.

    With `set_clock` it runs under libfaketime, and `ahead_seconds` sets its clock. It is started when this is
    created.
    """

    def __init__(self, folder: Path, *, fsync: str = "always", set_clock: bool = False) -> None:
        folder.mkdir(parents=True)
        self.folder, self.port, self._ahead_seconds = folder, free_port(), 0
        password = secrets.token_urlsafe(16)
        self.url = f"redis://:{password}@127.0.0.1:{self.port}/0"
        self._configuration = "\n".join(
            [
                f"bind 127.0.0.1\nport {self.port}\nrequirepass {password}\ndir {folder}",
                f"logfile {folder}/server.log\nauto-aof-rewrite-percentage 0",
                f'save ""\nappendonly yes\nappendfsync {fsync}\nmaxmemory-policy noeviction\n',
            ]
        )
        self._env = {**os.environ, **(_under_a_clock(folder / "clock") if set_clock else {})}
        self.start()

    @property
    def ahead_seconds(self) -> int:
        """The seconds by which the server's clock is ahead of this machine's."""
        return self._ahead_seconds

    @ahead_seconds.setter
    def ahead_seconds(self, seconds: int) -> None:
        self._ahead_seconds = seconds
        new = self.folder / "clock.new"
        new.write_text(f"{seconds:+d}")
        new.replace(self.folder / "clock")

    def start(self) -> None:
        """Start the server, and return when it is reachable."""
        self.process = subprocess.Popen(
            with_parent_death_signal([embedded_binary(), "-"]),
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(self._configuration.encode())
        self.process.stdin.close()
        wait_until(
            lambda: self.process.poll() is not None or is_reachable(self.url),
            _READY_SECONDS,
            "the server under test did not start",
            every_seconds=0.02,
        )
        assert self.process.poll() is None, "the server under test has ended"

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def cut_connections(self) -> None:
        """Close every connection of a client."""
        client = connect(self.url).client
        with suppress(RedisError):
            for kind in ("normal", "pubsub"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        client.close()

    def all_written_at(self) -> float:
        """Wait for a busy disk, and return a time before which all confirmed writes are in the file."""
        client = connect(self.url).client
        while True:
            at = time()
            if client.info("persistence")["aof_buffer_length"] == 0:
                client.close()
                return at

    @property
    def size(self) -> int:
        """The length of the append-only file in bytes."""
        return self._appended().stat().st_size

    def cut_off(self, size: int) -> None:
        """Truncate the append-only file of the killed server to `size` bytes."""
        os.truncate(self._appended(), size)

    def copy(self) -> Path:
        """Copy the files of the running server, and return the folder of the copy."""
        kept = self.folder / "copy"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.folder / "appendonlydir", kept)
        return kept

    def put_back(self, copy: Path) -> None:
        """Replace the files of the killed server by those of a copy. The copy is gone then."""
        shutil.rmtree(self.folder / "appendonlydir")
        copy.rename(self.folder / "appendonlydir")

    def _appended(self) -> Path:
        [file] = (self.folder / "appendonlydir").glob("*.incr.aof")
        return file


def _under_a_clock(file: Path) -> dict[str, str]:
    """Return the environment of a server that reads from a file by how much its clock is ahead."""
    [library, *_] = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None]
    if library is None:
        raise RuntimeError("libfaketime is not installed: install Debian's package faketime")
    file.write_text("+0")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
