"""Open folders below a root part by part, following no link: one that is swapped in leads nowhere."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TRIES = 5


@contextmanager
def open_folder(root: str, parts: Sequence[str]) -> Iterator[int]:
    """Yield a descriptor of the folder that `parts` name below the resolved `root`."""
    descriptor = open_below(os.open(root, _FOLDER), parts, made=None)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def make_folder(root: str, parts: Sequence[str]) -> Iterator[int]:
    """Yield a descriptor of the folder, with missing folders made.

    These are removed again if the block fails.
    """
    made: list[int] = []
    descriptor = _make_and_open(root, parts, made)
    try:
        yield descriptor
    except BaseException:
        for depth in reversed(made):
            with suppress(OSError), open_folder(root, parts[:depth]) as above:
                os.rmdir(parts[depth], dir_fd=above)
        raise
    finally:
        os.close(descriptor)


def open_below(folder: int, parts: Sequence[str], *, made: list[int] | None) -> int:
    """Return a descriptor of the folder that `parts` name below `folder`, which is closed.

    With `made`, folders that are missing are made, and their depths noted there.
    """
    try:
        for depth, name in enumerate(parts):
            try:
                below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            except FileNotFoundError:
                if made is None:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
                    made.append(depth)
                    os.fsync(folder)
                below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
    except BaseException:
        os.close(folder)
        raise
    return folder


def _make_and_open(root: str, parts: Sequence[str], made: list[int]) -> int:
    """Make and open the folder, and again if a failing task meanwhile removes one that it had made."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return open_below(os.open(root, _FOLDER), parts, made=made)
        except FileNotFoundError:
            if not tries_left:
                raise
    raise AssertionError("the loop above returns or raises")
