"""Compare two files or folders, byte for byte."""

import os
import stat

_CHUNK = 1024 * 1024
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def is_same(one: int, one_name: str, other: int, other_name: str) -> bool:
    """True if `one_name` in the folder `one` equals `other_name` in the folder `other`.

    Both folders are descriptors. Regular files are equal if their bytes are, and folders if they have the
    same names and each pair is equal. Anything else is unequal.
    """
    first = os.stat(one_name, dir_fd=one, follow_symlinks=False)
    second = os.stat(other_name, dir_fd=other, follow_symlinks=False)
    if stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
        return False
    if stat.S_ISDIR(first.st_mode):
        compare = _is_same_folder
    elif stat.S_ISREG(first.st_mode) and first.st_size == second.st_size:
        compare = _is_same_file
    else:
        return False
    here, there = os.open(one_name, _FLAGS, dir_fd=one), os.open(other_name, _FLAGS, dir_fd=other)
    try:
        return compare(here, there)
    finally:
        os.close(here)
        os.close(there)


def _is_same_folder(here: int, there: int) -> bool:
    names = sorted(os.listdir(here))
    return names == sorted(os.listdir(there)) and all(is_same(here, name, there, name) for name in names)


def _is_same_file(here: int, there: int) -> bool:
    """True if two open files have the same bytes from here on."""
    while True:
        chunk = os.read(here, _CHUNK)
        if chunk != _read_up_to(there, len(chunk) or 1):
            return False
        if not chunk:
            return True


def _read_up_to(descriptor: int, length: int) -> bytes:
    """Read exactly `length` bytes, fewer only at the end of the file."""
    parts = []
    while length and (part := os.read(descriptor, length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
