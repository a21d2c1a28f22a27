"""Open and make folders below a root part by part, without following a link at any part."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

#: The flags to read a file or a folder. A link is refused, and a pipe is opened without waiting for a writer.
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: How often missing folders are made, while other tasks, which fail, remove them again.
_TRIES = 5


@contextmanager
def open_folder(root: str, parts: Sequence[str]) -> Iterator[int]:
    """Yield a descriptor of the folder with the path `parts` below the resolved `root`. Raises `OSError`."""
    descriptor = open_below(os.open(root, _FOLDER_FLAGS), parts)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def make_folder(root: str, parts: Sequence[str]) -> Iterator[int]:
    """Yield a descriptor of a folder, as `open_folder`, after making the missing folders.

    If the block raises an error, the folders that were made are removed again, if they are empty.
    """
    made_depths: list[int] = []
    descriptor = _make_and_open(root, parts, made_depths)
    try:
        yield descriptor
    except BaseException:
        for depth in reversed(made_depths):
            with suppress(OSError), open_folder(root, parts[:depth]) as parent:
                os.rmdir(parts[depth], dir_fd=parent)
        raise
    finally:
        os.close(descriptor)


def open_below(folder: int, parts: Sequence[str], *, made_depths: list[int] | None = None) -> int:
    """Return a descriptor of the folder with the path `parts` below the descriptor `folder`, which is closed.

    With `made_depths`, missing folders are made, and their indexes in `parts` are added to the list. Raises
    `OSError`.
    """
    try:
        for depth, name in enumerate(parts):
            try:
                child = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
            except FileNotFoundError:
                if made_depths is None:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
                    made_depths.append(depth)
                    os.fsync(folder)
                child = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = child
    except BaseException:
        os.close(folder)
        raise
    return folder


def _make_and_open(root: str, parts: Sequence[str], made_depths: list[int]) -> int:
    """Make the missing folders of a path below a root, and return a descriptor of the last one."""
    for _ in range(_TRIES - 1):
        with suppress(FileNotFoundError):
            return open_below(os.open(root, _FOLDER_FLAGS), parts, made_depths=made_depths)
    return open_below(os.open(root, _FOLDER_FLAGS), parts, made_depths=made_depths)
