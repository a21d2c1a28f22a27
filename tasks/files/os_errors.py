"""Translate the operating system's errors about files into those of tasks."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from millpond.tasks.errors import BadInput, FinalError, OutsideRoots, RetryLater, TaskError, TooLarge

#: What a task does with a file.
Access = Literal["read", "write"]
_PARTICIPLES: dict[Access, str] = {"read": "read", "write": "written"}

#: The errors of a full disk or quota. Another run may succeed.
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}

#: Errors that another run would meet again: the end of the sentence about the file.
_BAD_INPUT = {
    errno.ENOENT: "does not exist: check the path",
    errno.EISDIR: "is a folder: name a file",
    errno.ENOTDIR: "goes through something that is no folder: check the path",
    errno.ENAMETOOLONG: "has a name that is too long for the file system: choose a shorter one",
    errno.ENOTEMPTY: "is a folder that already holds something: choose another target or remove it",
    errno.EEXIST: "is in the way of a folder: choose another target",
    errno.EINVAL: "has a name that the file system refuses: choose another",
}


@contextmanager
def translate_os_errors(url: str, access: Access) -> Iterator[None]:
    """Turn an `OSError` of the block into the error of a task that reads or writes `url`."""
    try:
        yield
    except OSError as error:
        raise task_error_for(error, url, access) from error


@contextmanager
def translate_full_disk(url: str) -> Iterator[None]:
    """Turn the error of a full disk in the block into that of a task that writes `url`.

    Any other `OSError` is raised unchanged: it may be that of another file, which the block reads.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_DISK or error.errno == errno.EFBIG:
            raise task_error_for(error, url, "write") from error
        raise


def task_error_for(error: OSError, url: str, access: Access) -> TaskError:
    """Return the task error for an `OSError` of reading or writing `url`."""
    number = error.errno
    if number in _FULL_DISK:
        return RetryLater(f"no room left to write {url}: free some space; nothing was left behind")
    if number == errno.EFBIG:
        return TooLarge(f"{url} grew over the largest file that may be written here: raise the limit")
    if number == errno.ELOOP:
        return OutsideRoots(
            f"{url} goes through a symbolic link that leads nowhere allowed: name the file itself"
        )
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return FinalError(f"{url} may not be {_PARTICIPLES[access]}: give the worker's user access to it")
    if isinstance(error, FileNotFoundError):
        number = errno.ENOENT  # fsspec raises it without a number
    if number in _BAD_INPUT:
        return BadInput(f"{url} {_BAD_INPUT[number]}")
    return RetryLater(f"{url} could not be {_PARTICIPLES[access]}: {error.strerror or error}")
