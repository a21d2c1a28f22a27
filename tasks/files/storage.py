"""Open the inputs and outputs of file operations: confined to the roots, written whole or not at all.

An output goes to a temporary name beside its target, is made durable and renamed there on success. On
any error, a cancellation included, it is removed. Local disks are reached through descriptors (`local.py`,
`folders.py`), everything else through fsspec (`remote.py`), whose own interface to local disks could not be
held inside a root.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files import folders, local, remote
from millpond.tasks.files.locations import LocalLocation, locate
from millpond.tasks.files.os_errors import translate_os_errors
from millpond.tasks.settings import Files, settings


@dataclass(frozen=True)
class Storage:
    """Open files below `roots`. `limits` bounds their reading and the outputs of handlers.

    Every method takes a URL or a path as in the contracts, and raises `OutsideRoots`, `BadInput`, `TooLarge`,
    `FinalError` (no access) or `RetryLater` (a full disk, an unreachable service).
    """

    roots: tuple[str, ...]
    limits: Files = field(default_factory=Files)

    @contextmanager
    def open_input(self, url: str, *, empty_allowed: bool = True) -> Iterator[BinaryIO]:
        """Open a regular file for reading, seekable, at most `limits.max_input_bytes` long."""
        location = locate(url, self.roots)
        reader = (
            local.open_input(location) if isinstance(location, LocalLocation) else remote.open_input(location)
        )
        with reader as file, translate_os_errors(url, "read"):
            self._check_length(url, file, empty_allowed)
            yield file

    def refuse_same(self, source: str, target: str) -> None:
        """Raise `BadInput` if both name one location: a second run would read the output of the first."""
        locations = locate(source, self.roots), locate(target, self.roots, to_write=True)
        if locations[0].key == locations[1].key:
            raise BadInput(f"{target} is the source itself: choose another target")

    @contextmanager
    def local_input(self, url: str, *, empty_allowed: bool = True) -> Iterator[str]:
        """Yield a local path to read, for a library that takes no file object. A remote file is fetched."""
        location = locate(url, self.roots)
        with self.open_input(url, empty_allowed=empty_allowed) as file:
            if isinstance(location, LocalLocation):
                yield local.path_of(file)
            else:
                with remote.fetch_to_local(file) as path:
                    yield path

    def open_output(self, url: str) -> AbstractContextManager[BinaryIO]:
        """Return a context with a new file. It appears as `url`, whole, if the block raises no error."""
        location = locate(url, self.roots, to_write=True)
        return (
            local.open_output(location)
            if isinstance(location, LocalLocation)
            else remote.open_output(location)
        )

    @contextmanager
    def local_output(self, url: str) -> Iterator[str]:
        """Like `open_output`, but yield a local path to write to, for a library that takes no file.

        The path leads to an open file: its name has no ending, and the library must write to it in place.
        """
        with self.open_output(url) as file:
            yield local.path_of(file)

    def output_folder(self, url: str) -> AbstractContextManager["folders.Folder"]:
        """Return a context with a new folder. It appears as `url`, at once, if the block raises no error.

        A target that already holds exactly this is left as it is (a second run of the same task). Any other
        content is `BadInput`, because a folder is never replaced or mixed.
        """
        location = locate(url, self.roots, to_write=True)
        return (
            folders.output_folder(location)
            if isinstance(location, LocalLocation)
            else remote.output_folder(location)
        )

    def _check_length(self, url: str, file: BinaryIO, empty_allowed: bool) -> None:
        """Raise `TooLarge` for a file over the limit, and `BadInput` for an empty one if it must not be."""
        length = file_length(file)
        if length > self.limits.max_input_bytes:
            raise TooLarge(
                f"{url} holds {length} bytes, more than max_input_bytes ({self.limits.max_input_bytes})"
            )
        if not length and not empty_allowed:
            raise BadInput(f"{url} is empty: there is nothing to work on")


def storage() -> Storage:
    """Return the storage that the settings describe."""
    files = settings().files
    return Storage(roots=files.roots, limits=files)


def file_length(file: BinaryIO) -> int:
    """Return a seekable file's length in bytes, and leave it at its beginning."""
    length = file.seek(0, 2)
    file.seek(0)
    return length
