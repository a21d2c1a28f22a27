"""A PostgreSQL server of one test, in a folder of its own. If root runs the tests, its user is `postgres`."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.harness.own_server import free_port

#: Where Debian puts the programs of the server.
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    port: int

    @property
    def address(self) -> str:
        """Return `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Return the URL of its database."""
        return f"postgresql://postgres@{self.address}/postgres"


@contextmanager
def postgres(folder: Path, *, statements: tuple[str, ...] = ()) -> Iterator[Postgres]:
    """Run a server for the length of a block, after it has executed these SQL statements."""
    import psycopg

    server = Postgres(free_port())
    data = folder / "postgres"
    data.mkdir()
    as_user = _user(data, folder)
    subprocess.run(
        [_program("initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        **as_user,
    )
    options = [
        *("-D", data, "-p", str(server.port), "-c", "listen_addresses=127.0.0.1"),
        *("-c", "fsync=off", "-c", "unix_socket_directories=", "-c", "log_min_messages=fatal"),
    ]
    process = subprocess.Popen([_program("postgres"), *options], stderr=subprocess.DEVNULL, **as_user)
    try:
        deadline = monotonic() + 30
        while True:
            try:
                with psycopg.connect(server.url, autocommit=True) as connection:
                    for statement in statements:
                        connection.execute(statement)
                break
            except psycopg.OperationalError:
                assert monotonic() < deadline, "PostgreSQL does not answer"
                sleep(0.1)
        yield server
    finally:
        process.terminate()  # the server waits for its clients to leave
        process.send_signal(2)  # SIGINT: it does not wait
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _program(name: str) -> str:
    found = PROGRAMS[-1] / name if PROGRAMS else shutil.which(name)
    assert found, "PostgreSQL is not installed"
    return str(found)


def _user(data: Path, folder: Path) -> dict[str, Any]:
    """Return options of `Popen` for another user if this is root, because the server refuses to run as root.

    Makes the folders accessible to that user.
    """
    if os.getuid():
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(data, user.pw_uid, user.pw_gid)
    for each in (folder, *folder.parents[:-2]):
        each.chmod(each.stat().st_mode | 0o011)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
