"""Read and write files on a local disk, by descriptors below a root.

An output is one unnamed promise: a locked partial beside the target (`partials.py`), synced, renamed, its
folder synced.
"""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from millpond.tasks.errors import BadInput
from millpond.tasks.files import partials
from millpond.tasks.files.beneath import folder_beneath, made_beneath
from millpond.tasks.files.faults import explained, room_explained
from millpond.tasks.files.places import LocalPlace


@contextmanager
def open_input(place: LocalPlace) -> Iterator[BinaryIO]:
    """Open a regular file for reading; devices, pipes and folders are refused before they are opened."""
    with explained(place.url, "read"), folder_beneath(place.root, place.parts[:-1]) as folder:
        name = place.parts[-1]
        _refuse_irregular(os.stat(name, dir_fd=folder, follow_symlinks=False), place.url)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        _refuse_irregular(os.fstat(descriptor), place.url)
        yield file


@contextmanager
def open_output(place: LocalPlace) -> Iterator[BinaryIO]:
    """Give a file that takes the place's name when the block ends without an error."""
    name = place.parts[-1]
    with ExitStack() as stack:
        stack.enter_context(room_explained(place.url))
        with explained(place.url, "write"):
            folder = stack.enter_context(made_beneath(place.root, place.parts[:-1]))
            _refuse_folder(folder, name, place.url)
            partial, descriptor = partials.claim_file(folder, name)
            # The lock is the descriptor's: it is closed last, after the rename or the removal.
            stack.callback(os.close, descriptor)
        try:
            with os.fdopen(os.dup(descriptor), "w+b") as file:
                yield file
            with explained(place.url, "write"):
                os.fsync(descriptor)
                os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
        except BaseException:
            partials.discard(folder, partial)
            raise


def path_of(file: BinaryIO) -> str:
    """Return a path that leads to this very open file, whatever has happened to its name."""
    return f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else f"/dev/fd/{file.fileno()}"


def _refuse_irregular(status: os.stat_result, url: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise BadInput(f"{url} is a folder: name a file")
    if stat.S_ISLNK(status.st_mode):
        raise BadInput(f"{url} became a symbolic link while it was opened: name the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{url} is a device, pipe or socket: only regular files are read")


def _refuse_folder(folder: int, name: str, url: str) -> None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        raise BadInput(f"{url} is a folder: name a file")
