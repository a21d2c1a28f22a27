"""The limits on an archive: the names of its entries, and the size of its content."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.folders import printable
from millpond.tasks.settings import Files

MAX_DEPTH = 64
_MAX_PART_BYTES = 255
_MAX_NAME_BYTES = 4096
_DRIVE = re.compile(r"^[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Below this no ratio is held against an archive: a small file of one byte repeated is no bomb.
RATIO_FROM_BYTES = 16 * 1024 * 1024


#: A tar's header and padding, twice.
SKIPPED_BYTES_PER_ENTRY = 2048
#: How much is read, written and counted at a time.
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Entry:
    """One entry of an archive: its name as stored, and a file's content in chunks (None: a folder).

    The chunks must be read before the next entry is taken.
    """

    name: str
    chunks: Iterator[bytes] | None


class Quota:
    """Counters of the output of an archive of `packed_bytes`. `TooLarge` is raised over a limit.

    The claims of an archive's own headers are never believed.
    """

    def __init__(self, limits: Files, packed_bytes: int, url: str) -> None:
        self.limits, self._url = limits, url
        self._ratio_bytes = max(RATIO_FROM_BYTES, packed_bytes * limits.max_unpacked_ratio)
        self.entries = self.folders = self.files = self.bytes = self._skipped = 0

    def count_entry(self) -> int:
        """Count an entry, and return its number, from 1. Raises `TooLarge` over the limit."""
        self.entries += 1
        self._check_entries()
        return self.entries

    def count_folder(self) -> None:
        """Add a folder that is made without an entry of its own."""
        self.folders += 1
        self._check_entries()

    def _check_entries(self) -> None:
        if self.entries + self.folders > self.limits.max_entries:
            raise TooLarge(f"{self._url} has over {self.limits.max_entries} entries (max_entries)")

    def count_bytes(self, count: int) -> None:
        """Add bytes of unpacked content. Raises `TooLarge`."""
        self.bytes += count
        if self.bytes > self.limits.max_unpacked_bytes:
            limit = f"{self.limits.max_unpacked_bytes} bytes (max_unpacked_bytes)"
        elif self.bytes > self._ratio_bytes:
            limit = f"{self.limits.max_unpacked_ratio} times its own size (max_unpacked_ratio)"
        else:
            return
        raise TooLarge(f"{self._url} unpacks to over {limit}: a decompression bomb, or raise the limit")

    def count_padding(self, count: int) -> None:
        """Add bytes of headers and padding, which are not kept. Each entry may have some.

        Raises `TooLarge`.
        """
        self._skipped += count
        allowance = self.limits.max_unpacked_bytes + self.limits.max_entries * SKIPPED_BYTES_PER_ENTRY
        if self._skipped > allowance:
            raise TooLarge(f"{self._url} is mostly headers and padding, over {allowance} bytes: refused")


class Names:
    """The names seen so far: each is accepted once, as a relative path below the target, or is `BadInput`.

    A folder without an entry of its own counts as one too.
    """

    def __init__(self, url: str, quota: Quota) -> None:
        self._url, self._quota = url, quota
        self._folders: set[str] = set()
        self._files: set[str] = set()

    def accept_name(self, name: str, number: int, *, folder: bool) -> str:
        """Return the path to make, empty for the target itself. Raises `BadInput`."""
        where = f"{self._url}, entry {number} ({printable(name)})"
        parts = _safe_parts(name, where)
        path = "/".join(parts)
        if not parts and not folder:
            raise BadInput(f"{where} has no name: the archive is damaged")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if path in self._files or any(each in self._files for each in above):
            raise BadInput(f"{where} comes twice, or lies below a file: refused, for only one could be kept")
        if not folder and path in self._folders:
            raise BadInput(f"{where} is a file and a folder: refused, for only one could be kept")
        for each in above:
            if each not in self._folders:
                self._quota.count_folder()
                self._folders.add(each)
        (self._folders if folder else self._files).add(path)
        return path


def decode_name(raw: bytes, encoding: str | None, number: int, url: str) -> str:
    """Return the name of an entry as text.

    Raises `BadInput`, with the option to give, if its encoding is not known.
    """
    try:
        return raw.decode(encoding or "utf-8")
    except LookupError as error:
        raise BadInput(f"no text encoding is called {encoding!r}: name one such as 'cp437'") from error
    except UnicodeError as error:
        where = f"{url}, entry {number} ({printable(raw.decode(errors='replace'))})"
        tip = "give the encoding of its names: encoding='cp437' (--encoding cp437), 'cp932', 'gb18030' …"
        raise BadInput(f"{where} has a name that is not {encoding or 'UTF-8'}: {tip}") from error


def _safe_parts(name: str, where: str) -> tuple[str, ...]:
    """Return the parts of a relative path.

    Raises `BadInput` for a name that leads out of the target or is malformed.
    """
    if name.startswith("/") or _DRIVE.match(name) or ".." in name.split("/"):
        raise BadInput(f"{where} would be written outside the target: refused")
    if "\\" in name:
        raise BadInput(f"{where} has a backslash, which other systems take for a folder: refused")
    if _CONTROL.search(name):
        raise BadInput(f"{where} has a control character in its name: refused")
    parts = PurePosixPath(name).parts
    length = len(name.encode())
    if length > _MAX_NAME_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        raise BadInput(f"{where} has a name too long for a file system: refused")
    if len(parts) > MAX_DEPTH:
        raise TooLarge(f"{where} lies deeper than {MAX_DEPTH} folders: refused")
    return parts
