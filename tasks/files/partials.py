"""Make, lock and remove partial files and folders: an output is written as a partial, which is then renamed.

A partial is `.<name>.<n>.millpond-part` beside its target, locked (flock) by its writer. The kernel releases
the lock of a process that dies, so a partial that can be locked is a leftover, and is removed. Simultaneous
writers of one target have different n. A partial is always created anew: a file of its name may be a
stranger's.
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
MAX_WRITERS = 8
_MAX_NAME_BYTES = 255
_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def claim_file(folder: int, name: str) -> tuple[str, int]:
    """Make and lock a new partial file for the target `name`. Return its name and descriptor."""
    return _make_locked(folder, name, lambda partial: os.open(partial, _CREATE_FLAGS, 0o666, dir_fd=folder))


def claim_folder(folder: int, name: str) -> tuple[str, int]:
    """Make and lock a new partial folder for the target `name`. Return its name and descriptor."""

    def make(partial: str) -> int:
        os.mkdir(partial, dir_fd=folder)
        return os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    return _make_locked(folder, name, make)


def discard_partial(folder: int, partial: str) -> None:
    """Remove a partial file, or a partial folder with its content. A missing partial is no error."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(partial, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(partial, dir_fd=folder)
        else:
            os.unlink(partial, dir_fd=folder)


def partial_name(name: str, number: int) -> str:
    """Return the name of a target's partial. A long name is cut to the limit of file systems."""
    raw_name, suffix = os.fsencode(name), f".{number}{PARTIAL_SUFFIX}".encode()
    if len(raw_name) + len(suffix) >= _MAX_NAME_BYTES:
        raw_name = raw_name[:150] + b"~" + hashlib.sha256(raw_name).hexdigest()[:16].encode()
    return os.fsdecode(b"." + raw_name + suffix)


def _make_locked(folder: int, name: str, make: Callable[[str], int]) -> tuple[str, int]:
    """Remove a target's leftovers, and make and lock its first free partial. Return its name and descriptor.

    `make` makes a partial of a name and opens it. Raises `RetryLater` if other tasks have all partials.
    """
    names = [partial_name(name, number) for number in range(MAX_WRITERS)]
    for partial in names:
        _remove_leftover(folder, partial)
    for partial in names:
        try:
            descriptor = make(partial)
        except FileExistsError:
            continue
        if _lock_partial(folder, partial, descriptor, if_unsupported=True):
            return partial, descriptor
        os.close(descriptor)  # another task has removed it as a leftover before it was locked
    raise RetryLater(f"{MAX_WRITERS} tasks write {name!r} at the moment: one target should have one writer")


def _remove_leftover(folder: int, partial: str) -> None:
    """Remove a partial if its writer is dead. A missing partial is no error."""
    try:
        descriptor = os.open(partial, _OPEN_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        discard_partial(folder, partial)  # a link or a socket, which no task has made
        return
    try:
        if _lock_partial(folder, partial, descriptor, if_unsupported=False):
            discard_partial(folder, partial)
    finally:
        os.close(descriptor)


def _lock_partial(folder: int, partial: str, descriptor: int, *, if_unsupported: bool) -> bool:
    """Lock an open partial. Return True if it is locked and its name still leads to it.

    Only the owner of the lock may rename or remove the partial, so this remains true until the descriptor is
    closed. `if_unsupported` is the answer of a file system without such locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        if not if_unsupported:
            return False
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(partial, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False
