"""Make a new folder with its content: in a partial folder, which takes the target's name at the end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from millpond.tasks.errors import BadInput
from millpond.tasks.files import partials
from millpond.tasks.files.byte_comparison import has_same_content
from millpond.tasks.files.escaping import escape_untrusted
from millpond.tasks.files.locations import LocalLocation
from millpond.tasks.files.os_errors import translate_full_disk, translate_os_errors
from millpond.tasks.files.safe_open import READ_FLAGS, open_below


@dataclass(frozen=True)
class Folder:
    """A new folder, open as `descriptor`, before it takes its name `url`.

    Files and folders are made below it. Their names are relative, with `/` between the parts. `BadInput` is
    raised for a name that leads out of the folder, and for a file that exists already.
    """

    url: str
    descriptor: int

    @contextmanager
    def create_file(self, name: str) -> Iterator[BinaryIO]:
        """Yield a new file to write, seekable. Missing folders above it are made."""
        *parents, last = self._safe_parts(name)
        url = self._url_below(name)
        with translate_os_errors(url, "write"):
            folder = self._open_folders(parents)
            try:
                descriptor = partials.create_file(last, folder)
            finally:
                os.close(folder)
        with translate_full_disk(url), os.fdopen(descriptor, "w+b") as file:
            yield file

    def make_folder(self, name: str) -> None:
        """Make a folder and the folders above it. An existing folder is no error."""
        with translate_os_errors(self._url_below(name), "write"):
            os.close(self._open_folders(self._safe_parts(name)))

    def _url_below(self, name: str) -> str:
        """Return the URL of a file or folder below this one, for an error."""
        return f"{self.url.rstrip('/')}/{escape_untrusted(name)}"

    def _open_folders(self, parts: list[str]) -> int:
        """Return a descriptor of the folder with this path. Missing folders are made."""
        return open_below(os.dup(self.descriptor), parts, made_depths=[])

    def _safe_parts(self, name: str) -> list[str]:
        """Return the parts of a relative path. Raises `BadInput` if it leads out of the folder."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or not parts or "\0" in name:
            raise BadInput(
                f"an entry named {escape_untrusted(name)} would be written outside {self.url}: refused"
            )
        return parts


@contextmanager
def output_folder(location: LocalLocation) -> Iterator[Folder]:
    """Yield a new folder, which takes its place at the location if the block raises no error.

    Raises `BadInput` if another file or folder is there with other content.
    """
    with partials.open_partial(location, partials.create_folder) as partial:
        yield Folder(location.url, partial.descriptor)
        with translate_os_errors(location.url, "write"):
            _sync_folder(partial.descriptor)
            _publish_folder(partial, location)


def _publish_folder(partial: partials.Partial, location: LocalLocation) -> None:
    """Rename a partial folder to the target's name, or remove it if the target has the same content already.

    Raises `BadInput` if the target has other content.
    """
    target = location.parts[-1]
    try:
        partial.rename_to(target)  # replaces an empty folder, too
        return
    except OSError as error:
        try:
            is_same = has_same_content(partial.parent, partial.name, partial.parent, target)
        except FileNotFoundError:
            raise error from None
    if not is_same:
        raise BadInput(
            f"{location.url} is there already and holds something else: choose another target or remove it"
        )
    partials.remove_partial(partial.parent, partial.name)


def _sync_folder(folder: int) -> None:
    """Write everything below a folder to the disk (fsync), before the folder takes its name."""
    for _, _, files, subfolder in os.fwalk(".", topdown=False, dir_fd=folder):
        for name in files:
            descriptor = os.open(name, READ_FLAGS, dir_fd=subfolder)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.fsync(subfolder)
