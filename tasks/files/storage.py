"""Open the inputs and outputs of file operations below the roots. An output appears complete or not at all.

An output has a temporary name beside its target until it is complete and durable, and is then renamed. After
an error or a cancellation it is removed. `local.py` and `folders.py` open local files by descriptors, and
`remote.py` opens all others with fsspec, whose interface to local disks would follow links out of a root.
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
    """Opens files below `roots`. `limits` are those of inputs, and of the outputs of handlers.

    Every method takes URLs or paths as the contracts have them, and raises `OutsideRoots`, `BadInput`,
    `TooLarge`, `FinalError` (no access) or `RetryLater` (a full disk, an unreachable service).
    """

    roots: tuple[str, ...]
    limits: Files = field(default_factory=Files)

    @contextmanager
    def open_input(self, url: str, *, empty_allowed: bool = True) -> Iterator[BinaryIO]:
        """Yield a regular file to read, seekable, of at most `limits.max_input_bytes` bytes."""
        location = locate(url, self.roots)
        reader = (
            local.open_input(location) if isinstance(location, LocalLocation) else remote.open_input(location)
        )
        with reader as file, translate_os_errors(url, "read"):
            self._check_length(url, file, empty_allowed)
            yield file

    def refuse_same_file(self, source: str, target: str) -> None:
        """Raise `BadInput` if both are one file: a second run would read the output of the first."""
        locations = locate(source, self.roots), locate(target, self.roots, to_write=True)
        if locations[0].key == locations[1].key:
            raise BadInput(f"{target} is the source itself: choose another target")

    @contextmanager
    def local_input(self, url: str, *, empty_allowed: bool = True) -> Iterator[str]:
        """Yield a local path to read, for a library that takes no file object. A remote file is copied."""
        location = locate(url, self.roots)
        with self.open_input(url, empty_allowed=empty_allowed) as file:
            if isinstance(location, LocalLocation):
                yield local.path_of(file)
            else:
                with remote.fetch_to_local(file) as path:
                    yield path

    def open_output(self, url: str) -> AbstractContextManager[BinaryIO]:
        """Return a context manager of a new file, which appears at `url` if the block raises no error."""
        location = locate(url, self.roots, to_write=True)
        if isinstance(location, LocalLocation):
            return local.open_output(location)
        return remote.open_output(location)

    @contextmanager
    def local_output(self, url: str) -> Iterator[str]:
        """As `open_output`, but yield a local path to write to, for a library that takes no file object.

        The path leads to an open file, so it has no ending, and the library must not replace the file.
        """
        with self.open_output(url) as file:
            yield local.path_of(file)

    def output_folder(self, url: str) -> AbstractContextManager[folders.Folder]:
        """Return a context manager of a new folder, which appears at `url` if the block raises no error.

        A target that has the same content already remains as it is: an earlier run has written it. `BadInput`
        is raised for other content, because no folder is replaced or mixed.
        """
        location = locate(url, self.roots, to_write=True)
        if isinstance(location, LocalLocation):
            return folders.output_folder(location)
        return remote.output_folder(location)

    def _check_length(self, url: str, file: BinaryIO, empty_allowed: bool) -> None:
        """Raise `TooLarge` for a file over the limit, and `BadInput` for an empty one that is not allowed."""
        length = measure_and_rewind(file)
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


def measure_and_rewind(file: BinaryIO) -> int:
    """Return the length of a seekable file in bytes, and set its position to the beginning."""
    length = file.seek(0, 2)
    file.seek(0)
    return length
