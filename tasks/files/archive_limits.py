"""Check an archive while it is unpacked: the names of its entries, their number, and their size."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.escaping import escape_untrusted
from millpond.tasks.settings import Files

#: The most folders above an entry, and the most bytes of a name and of each part of it.
MAX_DEPTH = 64
_MAX_NAME_BYTES = 4096
_MAX_PART_BYTES = 255
_DRIVE = re.compile(r"^[A-Za-z]:")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")

#: Up to this size the unpacked content may be any multiple of the archive: it is too small for a bomb.
_RATIO_FROM_BYTES = 16 * 1024 * 1024

#: The allowance of headers and padding for an entry: twice those of a tar's entry.
_PADDING_BYTES_PER_ENTRY = 2048

#: How much is read, written and counted at a time.
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Entry:
    """One entry of an archive: its name as stored, and a file's content in chunks; None for a folder.

    `label` is the beginning of an error about the entry. The chunks must be read before the next entry is.
    """

    name: str
    label: str
    chunks: Iterator[bytes] | None


def entry_label(url: str, number: int, name: str) -> str:
    """Return the beginning of an error about an entry: of the archive's entries, from 1, the one `number`."""
    return f"{url}, entry {number} ({escape_untrusted(name)})"


class Quota:
    """Counters of what an archive of `packed_bytes` bytes unpacks to. Over a limit, they raise `TooLarge`.

    Only unpacked data is counted. The sizes in the archive's headers are not trusted. `url` names the archive
    in errors.
    """

    def __init__(self, limits: Files, packed_bytes: int, url: str) -> None:
        self.limits, self._url = limits, url
        self._ratio_bytes = max(_RATIO_FROM_BYTES, packed_bytes * limits.max_unpacked_ratio)
        self.files = self.bytes = self._entries = self._padding_bytes = 0

    def count_entry(self) -> None:
        """Count an entry, or a folder that is made for an entry below it. Raises `TooLarge`."""
        self._entries += 1
        if self._entries > self.limits.max_entries:
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
        """Add bytes of headers and padding, which are not unpacked. Raises `TooLarge`."""
        self._padding_bytes += count
        allowance = self.limits.max_unpacked_bytes + self.limits.max_entries * _PADDING_BYTES_PER_ENTRY
        if self._padding_bytes > allowance:
            raise TooLarge(f"{self._url} is mostly headers and padding, over {allowance} bytes: refused")


class EntryNames:
    """The names of an archive's entries so far. Each must be a new relative path below the target."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._folders: set[str] = set()
        self._files: set[str] = set()

    def add_entry(self, entry: Entry) -> str:
        """Add the name of an entry, and return its path below the target; "" for the target itself.

        Missing folders above it are counted in the quota. Raises `BadInput` for a name that cannot be
        unpacked, and `TooLarge` if it is too deep, or if its folders are too many.
        """
        label, is_folder = entry.label, entry.chunks is None
        parts = _safe_parts(entry.name, label)
        path = "/".join(parts)
        if not parts and not is_folder:
            raise BadInput(f"{label} has no name: the archive is damaged")
        parents = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if path in self._files or not self._files.isdisjoint(parents):
            raise BadInput(f"{label} comes twice, or lies below a file: refused, for only one could be kept")
        if not is_folder and path in self._folders:
            raise BadInput(f"{label} is a file and a folder: refused, for only one could be kept")
        for parent in parents:
            if parent not in self._folders:
                self._quota.count_entry()
                self._folders.add(parent)
        (self._folders if is_folder else self._files).add(path)
        return path


def decode_name(raw: bytes, encoding: str | None, number: int, url: str) -> str:
    """Return the name of entry `number` as text. An `encoding` of None is UTF-8.

    Raises `BadInput`, with an option to choose, if the encoding does not exist or does not fit.
    """
    try:
        name = raw.decode(encoding or "utf-8")
        name.encode()  # raises UnicodeError for a surrogate, which UTF-7 and a few others can decode to
        return name
    except LookupError as error:
        raise BadInput(f"no text encoding is called {encoding!r}: name one such as 'cp437'") from error
    except UnicodeError as error:
        label = entry_label(url, number, raw.decode(errors="replace"))
        remedy = "give the encoding of its names: encoding='cp437' (--encoding cp437), 'cp932', 'gb18030' …"
        raise BadInput(f"{label} has a name that is not {encoding or 'UTF-8'}: {remedy}") from error


def _safe_parts(name: str, label: str) -> tuple[str, ...]:
    """Return the parts of a relative path. The errors begin with `label`.

    Raises `BadInput` for a name that leads out of the target or is malformed, `TooLarge` if it is too deep.
    """
    if name.startswith("/") or _DRIVE.match(name) or ".." in name.split("/"):
        raise BadInput(f"{label} would be written outside the target: refused")
    if "\\" in name:
        raise BadInput(f"{label} has a backslash, which other systems take for a folder: refused")
    if _CONTROL_CHARACTER.search(name):
        raise BadInput(f"{label} has a control character in its name: refused")
    parts = PurePosixPath(name).parts
    length = len(name.encode())
    if length > _MAX_NAME_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        raise BadInput(f"{label} has a name too long for a file system: refused")
    if len(parts) > MAX_DEPTH:
        raise TooLarge(f"{label} lies deeper than {MAX_DEPTH} folders: refused")
    return parts
