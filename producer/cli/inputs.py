"""Find the input files that the arguments of a command name, one by one, in constant memory.

An argument is a file, a folder (walked for the names that match the operation's patterns), a storage URL, or
`-` for paths on stdin, separated by newlines or, as `find -print0` writes them, by NUL.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath

from millpond.tasks.errors import BadInput

STDIN = "-"
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to work on: its path or storage URL, and its path relative to the folder that was named.

    The relative path of a file that was named itself is its name.
    """

    path: str
    relative_path: PurePosixPath

    @property
    def is_url(self) -> bool:
        """True if the file is in a storage, not on this machine."""
        return "://" in self.path


@dataclass(frozen=True, slots=True)
class UnreadableInput:
    """A file or folder that cannot be read, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class Inputs:
    """The input files of a command's arguments. Each iteration walks the folders anew.

    In folders, only names that match a pattern are taken (without patterns: all names), and `skipped_folder`
    is not walked.
    """

    arguments: Sequence[str]
    patterns: Sequence[str] = ()
    skipped_folder: Path | None = None

    def check_arguments(self) -> None:
        """Raise `BadInput` for an argument that names no file or folder, and for stdin named twice."""
        for argument in self.arguments:
            if argument != STDIN and "://" not in argument and not os.path.lexists(argument):
                raise BadInput(f"{argument}: there is no such file or folder; name one that exists")
        if self.arguments.count(STDIN) > 1:
            raise BadInput("'-' reads stdin to its end: name it once")

    def __iter__(self) -> Iterator[InputFile | UnreadableInput]:
        """Yield the inputs as they are found."""
        for argument in self.arguments:
            if argument == STDIN:
                yield from map(_named_input, read_paths(sys.stdin.fileno()))
            elif "://" not in argument and os.path.isdir(argument):  # noqa: PTH112  accepts names that are not UTF-8
                yield from self._walk_folder(argument, PurePosixPath())
            else:
                yield _named_input(argument)

    def count_items(self) -> int:
        """Return the number of items that an iteration yields. Do not call it if stdin is an argument."""
        return sum(1 for _ in self)

    @cached_property
    def distinct_arguments(self) -> frozenset[str]:
        """The arguments, without repetitions and order."""
        return frozenset(self.arguments)

    @cached_property
    def argument_folders(self) -> set[str]:
        """The folder of each argument but `-`, as a resolved path or a storage URL."""
        return {_folder_of(argument) for argument in self.arguments if argument != STDIN}

    def root_folders(self, *more: str) -> list[str]:
        """Return the folders that workers must be allowed to use: those of the arguments, and `more`.

        A folder is a path or a storage URL. One inside another is left out.
        """
        folders = self.argument_folders | ({os.path.realpath(".")} if STDIN in self.arguments else set())
        folders |= {folder if "://" in folder else os.path.realpath(folder) for folder in more}
        return sorted(folder for folder in folders if not any(_is_inside(folder, other) for other in folders))

    def _walk_folder(self, folder: str, relative: PurePosixPath) -> Iterator[InputFile | UnreadableInput]:
        """Yield the files of a folder and its subfolders. `relative` is the relative path of the folder."""
        for entry in _read_folder(folder):
            if isinstance(entry, UnreadableInput):
                yield entry
            elif entry.is_dir(follow_symlinks=False):
                skipped = self.skipped_folder
                if skipped is None or os.path.realpath(entry.path) != os.path.realpath(skipped):
                    yield from self._walk_folder(entry.path, relative / entry.name)
            elif self._matches_pattern(entry.name) and (file := _entry_input(entry, relative)) is not None:
                yield file

    def _matches_pattern(self, name: str) -> bool:
        return not self.patterns or any(fnmatch(name.lower(), pattern.lower()) for pattern in self.patterns)


def read_paths(descriptor: int) -> Iterator[str]:
    """Yield the paths that a descriptor delivers. They are separated by NUL if the first block has one.

    Raises `BadInput` for a path that is too long.
    """
    rest, separator = b"", None
    while block := os.read(descriptor, _READ_BYTES):
        rest += block
        if separator is None:
            separator = b"\0" if b"\0" in rest else b"\n"
        *paths, rest = rest.split(separator)
        yield from (os.fsdecode(path) for path in paths if path)
        if len(rest) > _READ_BYTES:
            raise BadInput("a path on stdin is over 65,536 bytes: separate the paths by newlines or NUL")
    if rest:
        yield os.fsdecode(rest)


def _read_folder(folder: str) -> "Iterator[os.DirEntry[str] | UnreadableInput]":
    """Yield the entries of a folder, and the folder itself if it cannot be read, or not to its end."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        yield UnreadableInput(folder, error.strerror or str(error))


def _entry_input(entry: "os.DirEntry[str]", relative: PurePosixPath) -> InputFile | UnreadableInput | None:
    """Return the input for an entry of a folder. Return None for an entry that is not a file."""
    try:
        return InputFile(entry.path, relative / entry.name) if entry.is_file() else None
    except OSError as error:  # a link to itself, or to a file in a folder without permission
        return UnreadableInput(entry.path, error.strerror or str(error))


def _named_input(path: str) -> InputFile | UnreadableInput:
    """Return the input for a path or URL that an argument or stdin names."""
    if "://" in path:
        return InputFile(path, PurePosixPath(path.rstrip("/").rpartition("/")[2]))
    if not os.path.isfile(path):  # noqa: PTH113
        return UnreadableInput(
            path, "there is no such file" if not os.path.lexists(path) else "is not a file"
        )
    return InputFile(path, PurePosixPath(os.path.basename(path)))  # noqa: PTH119


def _folder_of(argument: str) -> str:
    """Return the folder of an argument that is not `-`: itself, or that of a file or URL."""
    if "://" in argument:
        return argument.rstrip("/").rpartition("/")[0]
    folder = argument if os.path.isdir(argument) else os.path.dirname(argument)  # noqa: PTH112, PTH120
    return os.path.realpath(folder or ".")


def _is_inside(folder: str, other: str) -> bool:
    return folder != other and folder.startswith(other.rstrip("/") + "/")
