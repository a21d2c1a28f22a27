"""Fill a folder that appears at once: files are made below a partial one, which then is renamed."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from millpond.tasks.errors import BadInput
from millpond.tasks.files import atomic_output
from millpond.tasks.files.byte_comparison import is_same
from millpond.tasks.files.locations import LocalLocation
from millpond.tasks.files.os_errors import translate_full_disk, translate_os_errors
from millpond.tasks.files.safe_open import make_folder, open_below

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Folder:
    """A new folder, not visible under its name yet: files and folders are made below it, and nowhere else.

    Names are relative, with `/` between their parts. A file is new each time: an entry that comes twice is
    `BadInput`.
    """

    url: str
    descriptor: int

    @contextmanager
    def create_file(self, name: str) -> Iterator[BinaryIO]:
        """Yield a new file called `name` to write, seekable. Missing folders above it are made."""
        *above, last = self._safe_parts(name)
        url = f"{self.url.rstrip('/')}/{printable(name)}"
        with translate_os_errors(url, "write"):
            folder = self._open_folders(above)
            try:
                descriptor = os.open(last, _NEW, 0o666, dir_fd=folder)
            finally:
                os.close(folder)
        with translate_full_disk(url), os.fdopen(descriptor, "w+b") as file:
            yield file

    def mkdir(self, name: str) -> None:
        """Make a folder called `name`, and the folders above it. An existing folder is no error."""
        with translate_os_errors(f"{self.url.rstrip('/')}/{printable(name)}", "write"):
            os.close(self._open_folders(self._safe_parts(name)))

    def _open_folders(self, parts: list[str]) -> int:
        return open_below(os.dup(self.descriptor), parts, made=[])

    def _safe_parts(self, name: str) -> list[str]:
        """Return the parts of an entry's path. Raises `BadInput` if it leads out of the folder."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or not parts or "\0" in name:
            raise BadInput(f"an entry named {printable(name)} would be written outside {self.url}: refused")
        return parts


def printable(name: str) -> str:
    """Return an untrusted name as a message may show it: one line of ASCII, not too long."""
    text = ascii(name)[1:-1]
    return text if len(text) <= 200 else f"{text[:200]}…"


@contextmanager
def output_folder(location: LocalLocation) -> Iterator[Folder]:
    """Yield a folder that appears at the location when the block ends without an error."""
    name = location.parts[-1]
    with ExitStack() as stack:
        stack.enter_context(translate_full_disk(location.url))
        with translate_os_errors(location.url, "write"):
            above = stack.enter_context(make_folder(location.root, location.parts[:-1]))
            partial, descriptor = atomic_output.claim_folder(above, name)
            # The lock is the descriptor's: it is closed last, after the rename or the removal.
            stack.callback(os.close, descriptor)
        try:
            yield Folder(location.url, descriptor)
            with translate_os_errors(location.url, "write"):
                _sync_folder(descriptor)
                _publish_partial(above, partial, name, location.url)
        except BaseException:
            atomic_output.discard_partial(above, partial)
            raise


def _publish_partial(above: int, partial: str, name: str, url: str) -> None:
    """Rename the partial to the target's name. A target that is there must have the same content."""
    try:
        os.rename(partial, name, src_dir_fd=above, dst_dir_fd=above)  # replaces an empty folder too
        os.fsync(above)
        return
    except OSError:
        try:
            alike = is_same(above, partial, above, name)
        except FileNotFoundError:
            alike = None
        if alike is None:
            raise
    if not alike:
        raise BadInput(f"{url} is there already and holds something else: choose another target or remove it")
    atomic_output.discard_partial(above, partial)


def _sync_folder(folder: int) -> None:
    """Make everything below a folder durable, before the folder takes its name."""
    for _, _, files, below in os.fwalk(".", topdown=False, dir_fd=folder):
        for name in files:
            descriptor = os.open(name, _LOOK, dir_fd=below)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.fsync(below)
