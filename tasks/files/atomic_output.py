"""Name, lock and sweep partial files: outputs are written to them before they take their target's name.

A partial is `.<name>.<n>.millpond-part` beside its target and locked (flock) by its writer. The kernel
drops the lock of a process that dies, so a partial that can be locked is a leftover and is
removed. Writers of one target at the same time take different n. A partial is only ever made new, never
reopened: a file at its name is not trusted.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress

from millpond.tasks.errors import RetryLater
from millpond.tasks.files.locations import PARTIAL_SUFFIX

#: How many tasks may write one target at the same time.
SLOTS = 8
_NAME_BYTES = 255
_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def claim_file(folder: int, name: str) -> tuple[str, int]:
    """Make and lock a new partial file for the target `name`. Return its name and descriptor."""
    return _make_locked(folder, name, lambda partial: os.open(partial, _FILE, 0o666, dir_fd=folder))


def claim_folder(folder: int, name: str) -> tuple[str, int]:
    """Make and lock a new partial folder for the target `name`. Return its name and descriptor."""

    def make(partial: str) -> int:
        os.mkdir(partial, dir_fd=folder)
        return os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    return _make_locked(folder, name, make)


def discard_partial(folder: int, partial: str) -> None:
    """Remove a partial, file or folder. A missing partial is no error."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(partial, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(partial, dir_fd=folder)
        else:
            os.unlink(partial, dir_fd=folder)


def partial_name(name: str, slot: int) -> str:
    """Return the partial's name, which stays below the limit of file systems however long the target's is."""
    raw, tail = os.fsencode(name), f".{slot}{PARTIAL_SUFFIX}".encode()
    if len(raw) + len(tail) >= _NAME_BYTES:
        raw = raw[:150] + b"~" + hashlib.sha256(raw).hexdigest()[:16].encode()
    return os.fsdecode(b"." + raw + tail)


def _make_locked(folder: int, name: str, make: Callable[[str], int]) -> tuple[str, int]:
    """Make and lock the first free partial of a target. Raises `RetryLater` if other tasks have them all."""
    names = [partial_name(name, slot) for slot in range(SLOTS)]
    for partial in names:
        _remove_leftover(folder, partial)
    for partial in names:
        try:
            descriptor = make(partial)
        except FileExistsError:
            continue
        if _lock_partial(folder, partial, descriptor, where_unsupported=True):
            return partial, descriptor
        os.close(descriptor)  # a sweeper took it for a leftover between its making and its locking
    raise RetryLater(f"{SLOTS} tasks write {name!r} at the moment: one target should have one writer")


def _remove_leftover(folder: int, partial: str) -> None:
    """Remove a partial whose writer is dead."""
    try:
        descriptor = os.open(partial, _LOOK, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        discard_partial(folder, partial)  # a link or a socket: no writer of ours made it
        return
    try:
        if _lock_partial(folder, partial, descriptor, where_unsupported=False):
            discard_partial(folder, partial)
    finally:
        os.close(descriptor)


def _lock_partial(folder: int, partial: str, descriptor: int, *, where_unsupported: bool) -> bool:
    """Lock the open file. Return True if that worked and the name still leads to it.

    On a file system without such locks a partial just made counts as locked, and none counts as left over.

    Only the holder of the lock may rename or remove the file, so True stays true until the descriptor is
    closed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        if not where_unsupported:
            return False
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(partial, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False
