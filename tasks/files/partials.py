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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from millpond.tasks.errors import RetryLater
from millpond.tasks.files.locations import PARTIAL_SUFFIX, LocalLocation
from millpond.tasks.files.os_errors import translate_full_disk, translate_os_errors
from millpond.tasks.files.safe_open import READ_FLAGS, make_folder

#: How many tasks may write one target at the same time.
MAX_WRITERS = 8
_MAX_NAME_BYTES = 255
_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Partial:
    """A locked partial: the descriptor of the folder it is in, its name there, and its own descriptor."""

    parent: int
    name: str
    descriptor: int

    def rename_to(self, target: str) -> None:
        """Give the partial the target's name, and sync its folder. Raises `OSError`."""
        os.rename(self.name, target, src_dir_fd=self.parent, dst_dir_fd=self.parent)
        os.fsync(self.parent)


@contextmanager
def open_partial(location: LocalLocation, create: Callable[[str, int], int]) -> Iterator[Partial]:
    """Yield a new partial for the target at a location. It is removed if the block raises an error.

    `create` is `create_file` or `create_folder`. Missing folders above the target are made, and are removed
    after an error, too. Errors of these steps, and a full disk in the block, are raised as those of a task.
    """
    with ExitStack() as stack:
        stack.enter_context(translate_full_disk(location.url))
        with translate_os_errors(location.url, "write"):
            parent = stack.enter_context(make_folder(location.root, location.parts[:-1]))
            partial = _make_locked(parent, location.parts[-1], create)
            # The lock ends with the descriptor, so this is closed last, after the rename or the removal.
            stack.callback(os.close, partial.descriptor)
        try:
            yield partial
        except BaseException:
            remove_partial(parent, partial.name)
            raise


def create_file(name: str, folder: int) -> int:
    """Create a file in a folder, and return its descriptor. Raises `FileExistsError`."""
    return os.open(name, _CREATE_FLAGS, 0o666, dir_fd=folder)


def create_folder(name: str, folder: int) -> int:
    """Create a folder in a folder, and return its descriptor. Raises `FileExistsError`."""
    os.mkdir(name, dir_fd=folder)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def remove_partial(parent: int, name: str) -> None:
    """Remove a partial file, or a partial folder with its content. A missing partial is no error."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)


def partial_name(name: str, number: int) -> str:
    """Return the name of a target's partial. A long name is cut to the limit of file systems."""
    raw_name, suffix = os.fsencode(name), f".{number}{PARTIAL_SUFFIX}".encode()
    if len(raw_name) + len(suffix) >= _MAX_NAME_BYTES:
        raw_name = raw_name[:150] + b"~" + hashlib.sha256(raw_name).hexdigest()[:16].encode()
    return os.fsdecode(b"." + raw_name + suffix)


def _make_locked(parent: int, target: str, create: Callable[[str, int], int]) -> Partial:
    """Remove a target's leftovers, and make and lock its first free partial.

    Raises `RetryLater` if other tasks have all partials.
    """
    names = [partial_name(target, number) for number in range(MAX_WRITERS)]
    for name in names:
        _remove_leftover(parent, name)
    for name in names:
        try:
            partial = Partial(parent, name, create(name, parent))
        except FileExistsError:
            continue
        if _lock(partial, if_unsupported=True):
            return partial
        os.close(partial.descriptor)  # another task has removed it as a leftover before it was locked
    raise RetryLater(f"{MAX_WRITERS} tasks write {target!r} at the moment: one target should have one writer")


def _remove_leftover(parent: int, name: str) -> None:
    """Remove a partial if its writer is dead. A missing partial is no error."""
    try:
        descriptor = os.open(name, READ_FLAGS, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        remove_partial(parent, name)  # a link or a socket, which no task has made
        return
    try:
        if _lock(Partial(parent, name, descriptor), if_unsupported=False):
            remove_partial(parent, name)
    finally:
        os.close(descriptor)


def _lock(partial: Partial, *, if_unsupported: bool) -> bool:
    """Lock a partial. Return True if it is locked and its name still leads to it.

    Only the owner of the lock may rename or remove the partial, so this remains true until the descriptor is
    closed. `if_unsupported` is the answer on a file system without such locks.
    """
    try:
        fcntl.flock(partial.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        if not if_unsupported:
            return False
    try:
        status = os.stat(partial.name, dir_fd=partial.parent, follow_symlinks=False)
        return os.path.samestat(os.fstat(partial.descriptor), status)
    except FileNotFoundError:
        return False
