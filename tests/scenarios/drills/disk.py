"""A small disk that a test can fill: a tmpfs in a mount namespace of its own, which a process keeps alive."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SIZE_MB = 48

_MOUNT = f'mount -t tmpfs -o size={SIZE_MB}m none "$0" && echo mounted && exec sleep infinity'


class NoDisk(Exception):
    """Raised if this machine does not allow a mount namespace."""


@dataclass(frozen=True)
class Disk:
    """A small disk: its path in its namespace, and the id of the process that keeps that alive."""

    folder: Path
    keeper: int

    def program(self, binary: str) -> str:
        """Write a script that runs the program `binary` in the namespace, and return its path."""
        script = self.folder.parent / "on-the-disk"
        enter = f"nsenter --preserve-credentials --user --mount --target {self.keeper}"
        script.write_text(f'#!/bin/sh\nexec {enter} --wd="$PWD" {binary} "$@"\n')
        script.chmod(0o700)
        return str(script)

    def fill(self) -> None:
        """Fill the disk with a file of ballast."""
        with self._ballast.open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                return

    def empty(self) -> None:
        """Remove the file of ballast."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return Path(f"/proc/{self.keeper}/root{self.folder}/ballast")


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """Mount a disk at a folder for the length of a block. Raises `NoDisk`."""
    folder.mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, str(folder)]
    try:
        keeper = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise NoDisk(str(error)) from error
    try:
        assert keeper.stdout is not None
        if keeper.stdout.readline() != "mounted\n":
            raise NoDisk(keeper.communicate()[1])
        yield Disk(folder, keeper.pid)
    finally:
        keeper.kill()
        keeper.communicate()
