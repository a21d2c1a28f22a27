"""Read and write objects in a storage service through fsspec, with credentials from fsspec's configuration.

An output is written to an unnamed local file, uploaded under a temporary key with a digest of its content,
and moved to its target. A killed task can leave the temporary key, but no incomplete object at the target.
The next run has the same bytes, and so overwrites that key. The files of a folder are uploaded one by one:
each object appears complete, and the folder grows, because such services have no folders.
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
from millpond.tasks.files.escaping import escape_untrusted
from millpond.tasks.files.local import path_of
from millpond.tasks.files.locations import PARTIAL_SUFFIX, LocalLocation, RemoteLocation
from millpond.tasks.files.os_errors import Access, translate_full_disk, translate_os_errors
from millpond.tasks.process.paths import open_private_scratch, private_scratch_folder, scratch_folder

_CHUNK = 1024 * 1024


@contextmanager
def open_input(location: RemoteLocation) -> Iterator[BinaryIO]:
    """Yield an object to read. It is fetched in blocks as it is read.

    Raises `BadInput` for a folder, `FinalError` if no library here speaks the protocol, and the task error of
    what fails in the service.
    """
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
    """Copy an open object to a local file, and yield its path. The file is removed after the block."""
    with _private_scratch_path() as folder, tempfile.TemporaryFile(dir=folder) as copy:
        shutil.copyfileobj(file, copy, _CHUNK)
        copy.flush()
        # The file has no name, so the path leads to its descriptor.
        yield path_of(cast(BinaryIO, copy))


@contextmanager
def open_output(location: RemoteLocation) -> Iterator[BinaryIO]:
    """Yield a local file to write, which is uploaded to the location if the block raises no error.

    Raises what `_upload_file` raises, and the task error of a full local disk.
    """
    with (
        translate_full_disk(str(scratch_folder())),
        _private_scratch_path() as folder,
        tempfile.TemporaryFile(dir=folder) as file,
    ):
        yield cast(BinaryIO, file)
        file.flush()
        _upload_file(_file_system(location), cast(BinaryIO, file), location.path, location.url)


@contextmanager
def output_folder(location: RemoteLocation) -> Iterator[folders.Folder]:
    """Yield a local folder whose files are uploaded below the location if the block raises no error.

    Raises `BadInput` if there are other objects below the location.
    """
    with _private_scratch_path() as scratch, tempfile.TemporaryDirectory(dir=scratch) as temporary:
        local_folder = Path(temporary, "folder")
        with folders.output_folder(LocalLocation(location.url, temporary, (local_folder.name,))) as folder:
            yield folder
        files = (path for path in local_folder.rglob("*") if path.is_file())
        names = sorted(str(path.relative_to(local_folder)) for path in files)
        system = _file_system(location)
        with _translate_service_errors(location.url, "write"):
            keys = _list_objects(system, location.path)
        if not {key[len(location.path) :].strip("/") for key in keys} <= set(names):
            raise BadInput(
                f"{location.url} is there already and holds something else: "
                "choose another target or remove it"
            )
        for name in names:
            with (local_folder / name).open("rb") as file:
                url = f"{location.url.rstrip('/')}/{escape_untrusted(name)}"
                _upload_file(system, file, f"{location.path}/{name}", url)


@contextmanager
def _private_scratch_path() -> Iterator[str]:
    """Yield a path to this user's scratch folder, which is made if it is missing.

    On Linux, the path leads to a descriptor, so nobody can replace the folder meanwhile. Raises `FinalError`
    if the folder may belong to another user.
    """
    try:
        descriptor = open_private_scratch()
    except PermissionError as error:
        raise FinalError(f"{error.filename} cannot be used: {error.strerror}") from error
    try:
        yield f"/proc/self/fd/{descriptor}" if sys.platform == "linux" else str(private_scratch_folder())
    finally:
        os.close(descriptor)


def _upload_file(system: Any, file: BinaryIO, path: str, url: str) -> None:
    """Upload a file to a temporary key, move it to its target, and check its length there.

    The temporary key is removed if any of this fails. Raises `BadInput` if the target is a folder,
    `RetryLater` if it is not as long as the file afterwards, and the task error of what fails in the service.
    `url` is the target's.
    """
    folder, _, name = path.rpartition("/")
    file.seek(0)
    digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()[:32]
    temporary = f"{folder}/.{name}.{digest}{PARTIAL_SUFFIX}"
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
    """Move an object to its target. Another task with the same output may have moved it already.

    fsspec's default `mv` is not used: it would treat the name as a pattern.
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
    """Raise `RetryLater` unless the target exists and has this length."""
    system.invalidate_cache()
    try:
        size = system.size(path)
    except FileNotFoundError:
        size = None
    if size != length:
        state = "is not there" if size is None else f"is {size} bytes long there"
        raise RetryLater(f"{url} {state} after {length} bytes were sent: it is sent again")


def _list_objects(system: Any, path: str) -> list[str]:
    """Return the paths of the objects below a path, without the partials of killed runs.

    Some file systems begin a path with a slash, which is removed.
    """
    try:
        return [str(name).lstrip("/") for name in system.find(path) if not str(name).endswith(PARTIAL_SUFFIX)]
    except FileNotFoundError:
        return []


def _file_system(location: RemoteLocation) -> Any:
    """Return fsspec's file system, which it caches. Raises `FinalError` if a library is missing."""
    try:
        return fsspec.filesystem(location.protocol)
    except (ImportError, ValueError) as error:
        raise FinalError(f"no library here speaks {location.protocol}://: install it ({error})") from error


@contextmanager
def _translate_service_errors(url: str, access: Access) -> Iterator[None]:
    """Turn the errors of a service in the block into those of a task. One that is no `OSError` is retried."""
    with translate_os_errors(url, access):
        try:
            yield
        except (OSError, BadInput):
            raise
        except Exception as error:
            raise RetryLater(f"{url}: the storage service failed: {type(error).__name__}: {error}") from error
