"""Find the files that a command line names: as they are walked, so that a folder of any size needs no memory.

An argument is a file, a folder (walked, taking the names that fit the operation), a storage URL, or `-`:
paths from stdin, separated by newlines or, as `find -print0` writes them, by NUL.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from millpond.tasks.errors import BadInput

STDIN = "-"
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to work on: its path or URL, and its path below the named folder (or its name alone)."""

    place: str
    below: PurePosixPath

    @property
    def is_url(self) -> bool:
        """True if it lies in a storage and not on this machine."""
        return "://" in self.place


@dataclass(frozen=True, slots=True)
class UnreadableInput:
    """A path that could not be read, and the reason."""

    place: str
    reason: str


@dataclass(frozen=True)
class Inputs:
    """The arguments of a command, the name patterns that fit (none: every name), and a folder to skip."""

    arguments: Sequence[str]
    patterns: Sequence[str] = ()
    keep_out: Path | None = None

    def check_arguments(self) -> None:
        """Refuse an argument that names nothing. Raises `BadInput`."""
        for argument in self.arguments:
            if argument != STDIN and "://" not in argument and not os.path.lexists(argument):
                raise BadInput(f"{argument}: there is no such file or folder; name one that exists")
        if self.arguments.count(STDIN) > 1:
            raise BadInput("'-' reads stdin to its end: name it once")

    def __iter__(self) -> Iterator[InputFile | UnreadableInput]:
        """Yield the inputs as they are found."""
        for argument in self.arguments:
            if argument == STDIN:
                yield from map(_named_input, paths_from(sys.stdin.fileno()))
            elif "://" in argument:
                yield InputFile(argument, PurePosixPath(argument.rstrip("/").rpartition("/")[2]))
            elif os.path.isdir(argument):  # noqa: PTH112  bytes that are no UTF-8 pass through
                yield from self._walk_folder(argument, PurePosixPath())
            else:
                yield _named_input(argument)

    def count_items(self) -> int:
        """Return the number of items that an iteration yields. Stdin is read once: do not count it."""
        return sum(1 for _ in self)

    def root_folders(self, *others: Path) -> list[str]:
        """Return the folders that workers must be allowed for these arguments, without those in another."""
        named = {_root_of(argument) for argument in self.arguments} | {
            os.path.realpath(other) for other in others
        }
        return sorted(root for root in named if not any(_is_inside(root, other) for other in named))

    def _walk_folder(self, folder: str, below: PurePosixPath) -> Iterator[InputFile | UnreadableInput]:
        """Yield the files of a folder and of those below it."""
        try:
            entries = os.scandir(folder)
        except OSError as error:
            yield UnreadableInput(folder, error.strerror or str(error))
            return
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if self.keep_out is None or Path(entry.path).absolute() != self.keep_out.absolute():
                        yield from self._walk_folder(entry.path, below / entry.name)
                elif self._matches_pattern(entry.name) and (input_ := _entry_input(entry, below)) is not None:
                    yield input_

    def _matches_pattern(self, name: str) -> bool:
        return not self.patterns or any(fnmatch(name.lower(), pattern.lower()) for pattern in self.patterns)


def paths_from(descriptor: int) -> Iterator[str]:
    """Yield the paths from a descriptor, as they come. The first block shows how they are separated.

    Raises `BadInput`.
    """
    rest, separator = b"", None
    while block := os.read(descriptor, _READ_BYTES):
        rest += block
        if separator is None:
            separator = b"\0" if b"\0" in rest else b"\n"
        *whole, rest = rest.split(separator)
        yield from (os.fsdecode(path) for path in whole if path)
        if len(rest) > _READ_BYTES:
            raise BadInput("a path on stdin is over 65,536 bytes: separate the paths by newlines or NUL")
    if rest:
        yield os.fsdecode(rest)


def _entry_input(entry: "os.DirEntry[str]", below: PurePosixPath) -> InputFile | UnreadableInput | None:
    """Return an entry of a folder. A folder that cannot be read is an entry itself. None if it is no file."""
    try:
        return InputFile(entry.path, below / entry.name) if entry.is_file() else None
    except OSError as error:  # a link to itself, a folder that nobody may look into behind a link
        return UnreadableInput(entry.path, error.strerror or str(error))


def _named_input(path: str) -> InputFile | UnreadableInput:
    """Return the input that an argument names, or why it cannot be read."""
    if "://" in path:
        return InputFile(path, PurePosixPath(path.rpartition("/")[2]))
    if not os.path.isfile(path):  # noqa: PTH113
        return UnreadableInput(
            path, "there is no such file" if not os.path.lexists(path) else "is not a file"
        )
    return InputFile(path, PurePosixPath(os.path.basename(path)))  # noqa: PTH119


def _root_of(argument: str) -> str:
    """Return the folder that workers must be allowed for an argument."""
    if "://" in argument:
        return argument.rstrip("/").rpartition("/")[0]
    if argument == STDIN:
        return os.path.realpath(".")
    folder = argument if os.path.isdir(argument) else os.path.dirname(argument)  # noqa: PTH112, PTH120
    return os.path.realpath(folder or ".")


def _is_inside(root: str, other: str) -> bool:
    return root != other and root.startswith(other.rstrip("/") + "/")
