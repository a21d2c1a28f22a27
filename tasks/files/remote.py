"""Read and write objects in a storage service through fsspec, with credentials from fsspec's configuration.

An output is collected in an unnamed local file first, sent under a temporary key that is made of its
content, and moved. A killed task can leave that key, never half an object under the target's. The next run,
whose bytes are the same, takes it up. A folder is sent object by object: each appears whole, the folder
does not appear at once, because such services have no folders.
"""

import hashlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.spec import AbstractFileSystem

from millpond.tasks.errors import BadInput, FinalError, RetryLater
from millpond.tasks.files import folders
from millpond.tasks.files.local import path_of
from millpond.tasks.files.locations import PARTIAL_SUFFIX, LocalLocation, RemoteLocation
from millpond.tasks.files.os_errors import translate_full_disk, translate_os_errors
from millpond.tasks.process.paths import open_private_scratch, private_scratch_folder
from millpond.tasks.settings import scratch_folder

_CHUNK = 1024 * 1024


@contextmanager
def open_input(location: RemoteLocation) -> Iterator[BinaryIO]:
    """Open an object for reading. It is fetched in blocks as it is read. Raises `BadInput`."""
    system = _file_system(location)
    with _translate_service_errors(location.url, "read"):
        if system.isdir(location.path):
            raise BadInput(f"{location.url} is a folder: name a file")
        file = system.open(location.path, "rb")
    with io.BufferedReader(_ObjectReader(file, location.url), _CHUNK) as reader:
        yield reader


class _ObjectReader(io.RawIOBase):
    """A reader of an object that translates the errors of its service."""

    def __init__(self, file: Any, url: str) -> None:
        self._file = file
        self._url = url

    def readinto(self, buffer: Any) -> int:
        with _translate_service_errors(self._url, "read"):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        with _translate_service_errors(self._url, "read"):
            return int(self._file.seek(offset, whence))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def fetch_to_local(file: BinaryIO) -> Iterator[str]:
    """Copy an open object to a local file for the duration of the block."""
    with _scratch_folder() as folder, tempfile.TemporaryFile(dir=folder) as copy:
        shutil.copyfileobj(file, copy, _CHUNK)
        copy.flush()
        # The file has no name that another could take.
        yield path_of(cast(BinaryIO, copy))


@contextmanager
def open_output(location: RemoteLocation) -> Iterator[BinaryIO]:
    """Yield a local file that is sent to the location when the block ends without an error."""
    with (
        translate_full_disk(str(scratch_folder())),
        _scratch_folder() as folder,
        tempfile.TemporaryFile(dir=folder) as file,
    ):
        yield cast(BinaryIO, file)
        file.flush()
        _upload_file(_file_system(location), cast(BinaryIO, file), location.path, location.url)


@contextmanager
def output_folder(location: RemoteLocation) -> Iterator[folders.Folder]:
    """Yield a local folder whose files are sent below the location when the block ends without an error."""
    with _scratch_folder() as private, tempfile.TemporaryDirectory(dir=private) as collected:
        gathered = Path(collected, "folder")
        with folders.output_folder(LocalLocation(location.url, collected, (gathered.name,))) as folder:
            yield folder
        names = sorted(str(path.relative_to(gathered)) for path in gathered.rglob("*") if path.is_file())
        system = _file_system(location)
        with _translate_service_errors(location.url, "write"):
            there = {found[len(location.path) :].strip("/") for found in _list_objects(system, location.path)}
        if not there <= set(names):
            raise BadInput(
                f"{location.url} is there already and holds something else: "
                "choose another target or remove it"
            )
        for name in names:
            with (gathered / name).open("rb") as file:
                _upload_file(
                    system,
                    file,
                    f"{location.path}/{name}",
                    f"{location.url.rstrip('/')}/{folders.printable(name)}",
                )


@contextmanager
def _scratch_folder() -> Iterator[str]:
    """Yield a path to this user's own scratch folder that holds even if another user replaces its name."""
    try:
        descriptor = open_private_scratch()
    except PermissionError as error:
        raise FinalError(f"{error.filename} cannot be used: {error.strerror}") from error
    try:
        yield f"/proc/self/fd/{descriptor}" if sys.platform == "linux" else str(private_scratch_folder())
    finally:
        os.close(descriptor)


def _upload_file(system: Any, file: BinaryIO, path: str, url: str) -> None:
    """Upload a file under a temporary name, then move it to its target. Raises `BadInput` for a folder."""
    folder, _, name = path.rpartition("/")
    file.seek(0)
    temporary = f"{folder}/.{name}.{_file_digest(file)[:32]}{PARTIAL_SUFFIX}"
    with _translate_service_errors(url, "write"):
        if system.isdir(path):
            raise BadInput(f"{url} is a folder: name a file")
        if folder:
            system.makedirs(folder, exist_ok=True)
        try:
            file.seek(0)
            with system.open(temporary, "wb") as target:
                shutil.copyfileobj(file, target, _CHUNK)
            _move_to_target(system, temporary, path)
            _check_uploaded(system, path, url, file.seek(0, os.SEEK_END))
        except BaseException:
            with suppress(Exception):
                system.rm_file(temporary)
            raise


def _move_to_target(system: Any, temporary: str, path: str) -> None:
    """Move an object to its target. A task that writes the same bytes may have moved it already.

    The name is data and no pattern: fsspec's own `mv` expands names.
    """
    try:
        if type(system).mv is AbstractFileSystem.mv:
            system.cp_file(temporary, path)
            system.rm_file(temporary)
        else:
            system.mv(temporary, path)
    except FileNotFoundError:
        if not system.exists(path):
            raise


def _check_uploaded(system: Any, path: str, url: str, length: int) -> None:
    """Raise `RetryLater` unless the target is there, with the length that was sent."""
    system.invalidate_cache()
    try:
        size = system.size(path)
    except FileNotFoundError:
        size = None
    if size != length:
        there = "is not there" if size is None else f"is {size} bytes long there"
        raise RetryLater(f"{url} {there} after {length} bytes were sent: it is sent again")


def _file_digest(file: BinaryIO) -> str:
    return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def _list_objects(system: Any, path: str) -> list[str]:
    """List the objects below a path, without the partials of killed runs."""
    try:
        return [str(name).lstrip("/") for name in system.find(path) if not str(name).endswith(PARTIAL_SUFFIX)]
    except FileNotFoundError:
        return []


def _file_system(location: RemoteLocation) -> Any:
    """Return fsspec's file system for a protocol. Fsspec keeps them, one a process and thread."""
    try:
        return fsspec.filesystem(location.protocol)
    except (ImportError, ValueError) as error:
        raise FinalError(f"no library here speaks {location.protocol}://: install it ({error})") from error


@contextmanager
def _translate_service_errors(url: str, doing: Any) -> Iterator[None]:
    """Translate the errors of a service. An error that fsspec maps to no `OSError` counts as temporary."""
    with translate_os_errors(url, doing):
        try:
            yield
        except (OSError, BadInput):
            raise
        except Exception as error:
            raise RetryLater(f"{url}: the storage service failed: {type(error).__name__}: {error}") from error
