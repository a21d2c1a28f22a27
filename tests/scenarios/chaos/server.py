"""Run the server under test: it is killed, and comes back at the same address with all that it had taken."""

import secrets
import signal
import socket
import subprocess
from pathlib import Path
from time import monotonic, sleep

from millpond.broker.server import is_reachable
from millpond.worker.local.valkey import embedded_binary
from millpond.worker.supervise.parent_death import with_parent_death_signal

_READY_SECONDS = 60.0


class Broker:
    """A Valkey with an append-only file that is written to disk before each answer."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        password = secrets.token_urlsafe(16)
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        self._configuration = "\n".join(
            [
                f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {folder}",
                f"logfile {folder}/server.log",
                'save ""\nappendonly yes\nappendfsync always\nmaxmemory-policy noeviction\n',
            ]
        )
        self.start()

    def start(self) -> None:
        """Start the server, and return when it is_reachable."""
        self.process = subprocess.Popen(
            with_parent_death_signal([embedded_binary(), "-"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(self._configuration.encode())
        self.process.stdin.close()
        deadline = monotonic() + _READY_SECONDS
        while not is_reachable(self.url):
            if monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("the server under test did not start")
            sleep(0.02)

    def kill(self) -> None:
        """Kill the server without a word."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
