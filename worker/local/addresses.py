"""The ports and the password of an embedded set-up: chosen at its first start, then kept in its folder."""

import json
import os
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from millpond.tasks.errors import BadInput, StartError

T = TypeVar("T")

KEPT = "addresses.json"

#: Below the ports that Linux gives to outgoing connections: one of these is free at the next start too.
_PORTS = range(20_000, 30_000)
_ATTEMPTS = 100


@dataclass(frozen=True)
class RequestedAddresses:
    """The requested addresses. None means the address of the last start, port 0 any free port."""

    port: int | None = None
    password: str | None = field(default=None, repr=False)
    flower_port: int | None = None


class Addresses:
    """The addresses kept in a folder, updated by the requested ones."""

    def __init__(self, folder: Path, requested: RequestedAddresses) -> None:
        self._path = folder / KEPT
        self._requested = requested
        self._kept = _read_addresses(self._path)

    def choose_broker_address(self) -> tuple[int, str]:
        """Return a free port and the password for the broker. Raises `StartError` and `BadInput`."""
        password = self._requested.password
        if password is not None and (not password or not password.isprintable()):
            raise BadInput("--password must have at least one character, and no control characters")
        password = password or self._kept.get("password") or secrets.token_urlsafe(24)
        port = self._choose_port("port", self._requested.port, "--port")
        return port, self._store_entry("password", password)

    def choose_flower_port(self) -> int:
        """Return a free port for Flower. Raises `StartError`."""
        return self._choose_port("flower_port", self._requested.flower_port, "--flower-port")

    def _choose_port(self, name: str, requested: int | None, option: str) -> int:
        """Return the requested port, the one of the last start, or a free one.

        Raises `StartError` if it is in use.
        """
        port = self._kept.get(name) if requested is None else requested
        if not port:
            return self._store_entry(name, free_port())
        if not is_free_port(port):
            before = ", which it had at its last start," if requested is None else ""
            raise StartError(
                f"port {port}{before} is in use: stop the program that listens there, or choose another with "
                f"{option} PORT ({option} 0 takes a free one)"
            )
        return self._store_entry(name, port)

    def _store_entry(self, name: str, value: T) -> T:
        """Write an entry to the file if it has changed, and return it."""
        if self._kept.get(name) != value:
            self._kept[name] = value
            write_privately(self._path, json.dumps(self._kept))
        return value


def free_port() -> int:
    """Return a free port of loopback."""
    for _ in range(_ATTEMPTS):
        if is_free_port(port := secrets.choice(_PORTS)):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free_port(port: int) -> bool:
    """True if this process could listen on a port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def write_privately(path: Path, text: str) -> None:
    """Write a file atomically, readable only by its owner."""
    written = path.with_name(f"{path.name}.new")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    written.replace(path)


def _read_addresses(path: Path) -> dict[str, Any]:
    """Return the usable entries of the file. The others are chosen again."""
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    kept = entries if isinstance(entries, dict) else {}
    fits = {"port": int, "flower_port": int, "password": str}
    return {name: value for name, value in kept.items() if isinstance(value, fits.get(name, ()))}
