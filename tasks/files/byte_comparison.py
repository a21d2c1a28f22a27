"""Compare two files or folders, byte for byte."""

import os
import stat

from millpond.tasks.files.safe_open import READ_FLAGS

_CHUNK = 1024 * 1024


def has_same_content(folder1: int, name1: str, folder2: int, name2: str) -> bool:
    """True if `name1` in the folder `folder1` has the same content as `name2` in `folder2`.

    Both folders are descriptors. Regular files are the same if their bytes are, and folders if they have the
    same names and each pair is the same. Any other two are not. Raises `OSError`, as for a missing name.
    """
    status1 = os.stat(name1, dir_fd=folder1, follow_symlinks=False)
    status2 = os.stat(name2, dir_fd=folder2, follow_symlinks=False)
    if stat.S_IFMT(status1.st_mode) != stat.S_IFMT(status2.st_mode):
        return False
    if stat.S_ISDIR(status1.st_mode):
        compare = _compare_folders
    elif stat.S_ISREG(status1.st_mode) and status1.st_size == status2.st_size:
        compare = _compare_files
    else:
        return False
    first, second = os.open(name1, READ_FLAGS, dir_fd=folder1), os.open(name2, READ_FLAGS, dir_fd=folder2)
    try:
        return compare(first, second)
    finally:
        os.close(first)
        os.close(second)


def _compare_folders(first: int, second: int) -> bool:
    """True if two open folders have the same names, with the same content."""
    names = sorted(os.listdir(first))
    same_names = names == sorted(os.listdir(second))
    return same_names and all(has_same_content(first, name, second, name) for name in names)


def _compare_files(first: int, second: int) -> bool:
    """True if two open files have the same bytes."""
    with open(first, "rb", closefd=False) as file1, open(second, "rb", closefd=False) as file2:
        while chunk := file1.read(_CHUNK):
            if chunk != file2.read(_CHUNK):
                return False
        return not file2.read(1)
