"""Make a new folder with its content, below a partial folder, which is renamed at the end."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from millpond.tasks.errors import BadInput
from millpond.tasks.files import partials
from millpond.tasks.files.byte_comparison import has_same_content
from millpond.tasks.files.locations import LocalLocation
from millpond.tasks.files.os_errors import translate_full_disk, translate_os_errors
from millpond.tasks.files.safe_open import make_folder, open_below

_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Folder:
    """A new folder before it takes its name `url`: files and folders are made below it.

    Names are relative, with `/` between their parts. `BadInput` is raised for a name that leads out of the
    folder, and for a file that exists already.
    """

    url: str
    descriptor: int

    @contextmanager
    def create_file(self, name: str) -> Iterator[BinaryIO]:
        """Yield a new file to write, seekable. Missing folders above it are made."""
        *parents, last = self._safe_parts(name)
        url = f"{self.url.rstrip('/')}/{printable(name)}"
        with translate_os_errors(url, "write"):
            folder = self._open_folders(parents)
            try:
                descriptor = os.open(last, _CREATE_FLAGS, 0o666, dir_fd=folder)
            finally:
                os.close(folder)
        with translate_full_disk(url), os.fdopen(descriptor, "w+b") as file:
            yield file

    def make_folder(self, name: str) -> None:
        """Make a folder and the folders above it. An existing folder is no error."""
        with translate_os_errors(f"{self.url.rstrip('/')}/{printable(name)}", "write"):
            os.close(self._open_folders(self._safe_parts(name)))

    def _open_folders(self, parts: list[str]) -> int:
        """Return a descriptor of the folder with this path. Missing folders are made."""
        return open_below(os.dup(self.descriptor), parts, made_depths=[])

    def _safe_parts(self, name: str) -> list[str]:
        """Return the parts of a relative path. Raises `BadInput` if it leads out of the folder."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or not parts or "\0" in name:
            raise BadInput(f"an entry named {printable(name)} would be written outside {self.url}: refused")
        return parts


def printable(name: str) -> str:
    """Return an untrusted text for a message: one line of ASCII, cut to 200 characters."""
    text = ascii(name)[1:-1]
    return text if len(text) <= 200 else f"{text[:200]}…"


@contextmanager
def output_folder(location: LocalLocation) -> Iterator[Folder]:
    """Yield a new folder, which takes its place at the location if the block raises no error.

    Raises `BadInput` if another file or folder is there with other content.
    """
    name = location.parts[-1]
    with ExitStack() as stack:
        stack.enter_context(translate_full_disk(location.url))
        with translate_os_errors(location.url, "write"):
            parent = stack.enter_context(make_folder(location.root, location.parts[:-1]))
            partial, descriptor = partials.claim_folder(parent, name)
            # The lock ends with the descriptor, so this is closed last, after the rename or the removal.
            stack.callback(os.close, descriptor)
        try:
            yield Folder(location.url, descriptor)
            with translate_os_errors(location.url, "write"):
                _sync_folder(descriptor)
                _publish_partial(parent, partial, name, location.url)
        except BaseException:
            partials.discard_partial(parent, partial)
            raise


def _publish_partial(parent: int, partial: str, name: str, url: str) -> None:
    """Rename the partial to the target's name, or discard it if the target has the same content already.

    Raises `BadInput` if the target has other content.
    """
    try:
        os.rename(partial, name, src_dir_fd=parent, dst_dir_fd=parent)  # replaces an empty folder, too
        os.fsync(parent)
        return
    except OSError as error:
        try:
            is_same = has_same_content(parent, partial, parent, name)
        except FileNotFoundError:
            raise error from None
    if not is_same:
        raise BadInput(f"{url} is there already and holds something else: choose another target or remove it")
    partials.discard_partial(parent, partial)


def _sync_folder(folder: int) -> None:
    """Write everything below a folder to the disk (fsync), before the folder takes its name."""
    for _, _, files, subfolder in os.fwalk(".", topdown=False, dir_fd=folder):
        for name in files:
            descriptor = os.open(name, _READ_FLAGS, dir_fd=subfolder)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.fsync(subfolder)
