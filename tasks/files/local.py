"""Read and write files on a local disk, by descriptors of folders below a root.

An output is written to a locked partial beside its target (`partials.py`). At the end the partial is synced
to the disk and renamed, and then the folder is synced.
"""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from millpond.tasks.errors import BadInput
from millpond.tasks.files import partials
from millpond.tasks.files.locations import LocalLocation
from millpond.tasks.files.os_errors import translate_os_errors
from millpond.tasks.files.safe_open import READ_FLAGS, open_folder


@contextmanager
def open_input(location: LocalLocation) -> Iterator[BinaryIO]:
    """Yield a regular file to read.

    Raises `BadInput` for anything else, which is not even opened, and the task error for an `OSError`.
    """
    with translate_os_errors(location.url, "read"), open_folder(location.root, location.parts[:-1]) as folder:
        name = location.parts[-1]
        _refuse_irregular(os.stat(name, dir_fd=folder, follow_symlinks=False), location.url)
        descriptor = os.open(name, READ_FLAGS, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        _refuse_irregular(os.fstat(descriptor), location.url)
        yield file


@contextmanager
def open_output(location: LocalLocation) -> Iterator[BinaryIO]:
    """Yield a new file to write, which takes its place at the location if the block raises no error."""
    with partials.open_partial(location, partials.create_file) as partial:
        with translate_os_errors(location.url, "write"):
            _refuse_folder(partial.parent, location.parts[-1], location.url)
        with os.fdopen(os.dup(partial.descriptor), "w+b") as file:
            yield file
        with translate_os_errors(location.url, "write"):
            os.fsync(partial.descriptor)
            partial.rename_to(location.parts[-1])


def path_of(file: BinaryIO) -> str:
    """Return a path to an open file, which remains valid when the file is renamed or removed."""
    return f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else f"/dev/fd/{file.fileno()}"


def _refuse_irregular(status: os.stat_result, url: str) -> None:
    """Raise `BadInput` unless the status is that of a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise BadInput(f"{url} is a folder: name a file")
    if stat.S_ISLNK(status.st_mode):
        raise BadInput(f"{url} became a symbolic link while it was opened: name the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{url} is a device, pipe or socket: only regular files are read")


def _refuse_folder(folder: int, name: str, url: str) -> None:
    """Raise `BadInput` if `name` in a folder is a folder itself. A missing name is no error."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        raise BadInput(f"{url} is a folder: name a file")
