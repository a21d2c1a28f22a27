"""The ports and the password of an embedded set-up: chosen at its first start, and kept in its folder."""

import json
import os
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from millpond.tasks.errors import BadInput, StartError

T = TypeVar("T")

ADDRESSES_FILE = "addresses.json"

#: Ports below those that Linux gives to outgoing connections, so that a chosen one is free at the next start
#: too.
_PORTS = range(20_000, 30_000)
_ATTEMPTS = 100


@dataclass(frozen=True)
class RequestedAddresses:
    """The requested ports and password. None means that of the last start, port 0 any free port."""

    port: int | None = None
    password: str | None = field(default=None, repr=False)
    flower_port: int | None = None


class Addresses:
    """The addresses in a folder's file. Those that are chosen are written to it."""

    def __init__(self, folder: Path, requested: RequestedAddresses) -> None:
        self._path = folder / ADDRESSES_FILE
        self._requested = requested
        self._kept = _read_addresses(self._path)

    def choose_broker_address(self) -> tuple[int, str]:
        """Return the port and the password of the broker.

        Raises `StartError` if the port is in use, and `BadInput` for a requested password that is empty or
        has control characters.
        """
        password = self._requested.password
        if password is not None and (not password or not password.isprintable()):
            raise BadInput("--password must have at least one character, and no control characters")
        password = password or self._kept.get("password") or secrets.token_urlsafe(24)
        port = self._choose_port("port", self._requested.port, "--port")
        return port, self._store_entry("password", password)

    def choose_flower_port(self) -> int:
        """Return the port of Flower. Raises `StartError` if it is in use."""
        return self._choose_port("flower_port", self._requested.flower_port, "--flower-port")

    def _choose_port(self, entry: str, requested: int | None, option: str) -> int:
        """Return the requested port, or that of the last start, or else a free one, and write it to the file.

        `entry` is its name in the file. Raises `StartError` if the port is in use. The error names the
        `option` of the command by which another one can be chosen.
        """
        port = self._kept.get(entry) if requested is None else requested
        if not port:
            return self._store_entry(entry, find_free_port())
        if not is_free_port(port):
            origin = ", which it had at its last start," if requested is None else ""
            raise StartError(
                f"port {port}{origin} is in use: stop the program that listens there, or choose another with "
                f"{option} PORT ({option} 0 takes a free one)"
            )
        return self._store_entry(entry, port)

    def _store_entry(self, entry: str, value: T) -> T:
        """Set an entry, write the file if that changes it, and return the value."""
        if self._kept.get(entry) != value:
            self._kept[entry] = value
            write_private_file(self._path, json.dumps(self._kept))
        return value


def find_free_port() -> int:
    """Return a free port of loopback, chosen at random."""
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


def write_private_file(path: Path, text: str) -> None:
    """Write a file atomically, readable only by its owner."""
    new_file = path.with_name(f"{path.name}.new")
    descriptor = os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new_file.replace(path)


def _read_addresses(path: Path) -> dict[str, Any]:
    """Return the entries of the file that have the right type, or {} if the file cannot be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    entries = content if isinstance(content, dict) else {}
    types = {"port": int, "flower_port": int, "password": str}
    return {name: value for name, value in entries.items() if isinstance(value, types.get(name, ()))}
