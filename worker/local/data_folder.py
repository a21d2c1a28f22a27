"""The data folder of an embedded set-up: locked against a second one, with the addresses of its services."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from millpond.tasks.errors import StartError
from millpond.tasks.process.local_instance import ADDRESS, LOCK, LocalInstance, try_lock
from millpond.tasks.process.paths import scratch_folder
from millpond.worker.local.addresses import write_private_file

_LOCK_SECONDS = 2.0


@dataclass(frozen=True)
class DataFolder:
    """A locked folder. `lock` is the descriptor of its lock file, which the server inherits."""

    path: Path
    lock: int

    def write_addresses(self, instance: LocalInstance) -> None:
        """Write the addresses of the services to a file that other commands of the same user read."""
        write_private_file(self.path / ADDRESS, instance.to_json())


@contextmanager
def locked_folder(path: Path | None) -> Iterator[DataFolder]:
    """Create and lock the data folder for the length of a `with` block.

    Without a `path` it is a temporary folder, which is removed at the end. Raises `StartError` if the folder
    cannot be used, or another embedded set-up has locked it.
    """
    folder = path or Path(tempfile.mkdtemp(prefix="millpond-", dir=scratch_folder()))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"{folder} cannot be used: {error.strerror}. Name another with --data DIR") from None
    if folder.stat().st_uid not in (os.getuid(), 0):
        raise StartError(f"{folder} belongs to another user: name another with --data DIR")
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if not _try_lock_for_a_moment(lock):
            raise StartError(_lock_error_text(folder, lock))
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        try:
            yield DataFolder(folder, lock)
        finally:
            (folder / ADDRESS).unlink(missing_ok=True)
    finally:
        os.close(lock)
        if path is None:
            shutil.rmtree(folder, ignore_errors=True)


def _lock_error_text(folder: Path, lock: int) -> str:
    """Return why the folder cannot be locked.

    Another set-up runs in it, or one was killed and its server still runs.
    """
    owner = os.pread(lock, 32, 0).decode(errors="replace")
    if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc/self").exists():
        return (
            f"the millpond up that ran in {folder} was killed, and its broker still writes its data: "
            "try again in a moment, or use another folder with --data DIR"
        )
    process = f" (process {owner})" if owner.isdigit() else ""
    return f"another millpond up{process} runs in {folder}: stop it, or give this one its own with --data DIR"


def _try_lock_for_a_moment(lock: int) -> bool:
    """Lock the file, and return False if another process has it locked for more than `_LOCK_SECONDS`.

    The server of a killed set-up, or a command that tests the lock, has it only for a moment.
    """
    deadline = monotonic() + _LOCK_SECONDS
    while not try_lock(lock):
        if monotonic() > deadline:
            return False
        sleep(0.05)
    return True
