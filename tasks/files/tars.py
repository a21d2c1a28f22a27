"""Read a tar from its beginning to its end in limited memory. `tarfile` reads only the headers."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.archive_limits import CHUNK_BYTES, Entry, Quota, decode_name, entry_label
from millpond.tasks.files.decompression import Readable
from millpond.tasks.files.escaping import escape_untrusted

#: The maximum bytes of the headers of one entry. tarfile has long names and pax records in memory as a whole.
MAX_HEADER_BYTES = 1024 * 1024
_BLOCK = tarfile.BLOCKSIZE
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
#: Types of entries that are skipped: the label of an archive (GNU tar), and access rights (Solaris).
_SKIPPED_TYPES = (b"V", b"A")
#: The type of a folder with a list of its names, in backups of GNU tar.
_BACKUP_FOLDER = b"D"
#: Types of entries that are refused.
_REFUSED_TYPES = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
#: The errors that tarfile raises for a damaged header.
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, LookupError, RecursionError, EOFError, MemoryError)


def is_tar(head: bytes) -> bool:
    """True if these bytes begin with a header of a tar, of any version: its checksum is right."""
    try:
        tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, *_DAMAGE):
        return False
    return True


def read_entries(stream: Readable, url: str, encoding: str | None, quota: Quota) -> Iterator[Entry]:
    """Return an iterator over the entries of a tar. `encoding` is that of names outside pax headers.

    Raises `BadInput` if the stream is no tar. The iterator raises `BadInput` for a damaged archive, and for
    an entry that is no file and no folder.
    """
    tar_stream = _TarStream(stream, url, quota)
    if not is_tar(tar_stream.peek(_BLOCK)):
        raise BadInput(f"{url} holds no tar, by its first header: only archives are unpacked")
    return _read_checked_entries(tar_stream, url, encoding)


def _read_checked_entries(tar_stream: "_TarStream", url: str, encoding: str | None) -> Iterator[Entry]:
    """Yield the files and folders of all archives in the stream. Raises `BadInput` for another entry."""
    number = 0
    while True:
        for member in _read_headers(tar_stream, url, number):
            if member.type in _SKIPPED_TYPES:
                continue
            number += 1
            name = _decode_entry_name(member, encoding, number, url)
            label = entry_label(url, number, name)
            _refuse_special(member, label)
            yield Entry(name, label, None if _is_folder(member) else _read_content(tar_stream, member, url))
        # Concatenated archives are one archive, as concatenated streams of gzip are one.
        if not tar_stream.skip_zeros():
            break
    tar_stream.read_to_end()


def _read_headers(tar_stream: "_TarStream", url: str, entries_before: int) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of one archive, up to its end mark.

    `entries_before` is the number of entries before this archive. Raises `BadInput` for a damaged archive.
    """
    number = entries_before
    with _reading_header(tar_stream, url):
        tar = tarfile.TarFile(
            fileobj=cast(Any, tar_stream), mode="r", encoding="utf-8", errors="surrogateescape"
        )
        member = tar.next()
    while member is not None:
        number += 1
        _repair_name(member, tar_stream.last_block)
        yield member
        # tarfile collects all members in this list, and none is needed again.
        cast(Any, tar).members.clear()
        with _reading_header(tar_stream, url):
            member = tar.next()
    if tar_stream.last_block.strip(b"\0") or not tar_stream.last_block:
        raise BadInput(
            f"{url} ends without a tar's end mark: it was cut off, or entry {number + 1} is damaged"
        )


def _repair_name(member: tarfile.TarInfo, header: bytes) -> None:
    """Correct the name of an entry in a backup of GNU tar.

    tarfile takes the times of the backup for the prefix of a ustar name, and adds them to the name.
    """
    # A header has the name at 0, the format's mark at 257, and the prefix, or the times, at 345.
    name, prefix = (field.split(b"\0")[0] for field in (header[:100], header[345:500]))
    raw_name = member.name.encode("utf-8", "surrogateescape")
    has_prefix = raw_name.rstrip(b"/") == prefix + b"/" + name.rstrip(b"/")
    if prefix and has_prefix and header[257:265] == tarfile.GNU_MAGIC:
        member.name = name.decode("utf-8", "surrogateescape")


def _decode_entry_name(member: tarfile.TarInfo, encoding: str | None, number: int, url: str) -> str:
    """Return the name of an entry as text. A name in a pax header is UTF-8, others have `encoding`."""
    # For a sparse file of GNU tar, `member.name` is not the name of the file itself.
    name = member.pax_headers.get("GNU.sparse.name", member.name)
    raw_name = name.encode("utf-8", "surrogateescape")
    is_utf8 = not {"path", "GNU.sparse.name"}.isdisjoint(member.pax_headers)
    return decode_name(raw_name, None if is_utf8 else encoding, number, url)


def _is_folder(member: tarfile.TarInfo) -> bool:
    return member.isdir() or member.type == _BACKUP_FOLDER


def _read_content(tar_stream: "_TarStream", member: tarfile.TarInfo, url: str) -> Iterator[bytes]:
    """Yield the content of a file in chunks, with zeros for the holes of a sparse file. Raises `BadInput`."""
    if member.sparse is None:
        yield from tar_stream.read_chunks(member.size)
        return
    position = 0
    for offset, size in cast("list[tuple[int, int]]", member.sparse):
        if not size:
            continue
        if not 0 <= position <= offset or size < 0 or offset + size > member.size:
            raise BadInput(f"{url} has a sparse file whose parts overlap: the archive is damaged")
        yield from _yield_zeros(offset - position)
        yield from tar_stream.read_chunks(size)
        position = offset + size
    yield from _yield_zeros(member.size - position)


def _yield_zeros(count: int) -> Iterator[bytes]:
    """Yield `count` zero bytes in chunks."""
    while count:
        chunk = bytes(min(count, CHUNK_BYTES))
        count -= len(chunk)
        yield chunk


def _refuse_special(member: tarfile.TarInfo, label: str) -> None:
    """Raise `BadInput` for an entry that is no file and no folder, or has a negative length."""
    if not _is_folder(member) and not member.issparse() and member.type not in _FILES:
        description = _REFUSED_TYPES.get(member.type, "of a kind that is not known here")
        raise BadInput(f"{label} is {description}: only files and folders are unpacked")
    if member.size < 0:
        raise BadInput(f"{label} has a negative length: the archive is damaged")


@contextmanager
def _reading_header(tar_stream: "_TarStream", url: str) -> Iterator[None]:
    """Begin the count of header bytes for another entry. Raises `BadInput` if tarfile fails in the block."""
    tar_stream.header_bytes = 0
    try:
        yield
    except _DAMAGE as error:
        raise BadInput(
            f"{url} is no whole tar: {escape_untrusted(str(error)) or type(error).__name__}"
        ) from error


class _TarStream:
    """The stream of a tar, read forwards only. It is the file from which tarfile reads the headers."""

    def __init__(self, stream: Readable, url: str, quota: Quota) -> None:
        self._stream, self._url, self._quota = stream, url, quota
        #: Bytes that were peeked at, to be read again.
        self._peeked = b""
        self._position = 0
        #: The bytes of the present entry's headers so far.
        self.header_bytes = 0
        #: The block that tarfile has read last: a header, or the end mark.
        self.last_block = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        """Skip the bytes up to `position`. Raises `BadInput` for a position before the current one."""
        if position < self._position:
            raise BadInput(f"{self._url} has a header that points back: the archive is damaged")
        while self._position < position:
            skipped = len(self._read_available(min(CHUNK_BYTES, position - self._position)))
            self._quota.count_padding(skipped)
            if not skipped:
                return

    def read(self, size: int) -> bytes:
        """Return `size` bytes of a header; fewer only at the end. Raises `TooLarge` for too long headers."""
        self.header_bytes += max(size, 0)
        if size < 0 or self.header_bytes > MAX_HEADER_BYTES:
            raise TooLarge(f"{self._url} has an entry whose headers are over {MAX_HEADER_BYTES} bytes")
        data = b""
        while len(data) < size and (part := self._read_available(size - len(data))):
            data += part
        self._quota.count_padding(len(data))
        if size == _BLOCK:
            self.last_block = data
        return data

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end, without advancing."""
        while len(self._peeked) < size and (part := self._stream.read(size - len(self._peeked))):
            self._peeked += part
        return self._peeked[:size]

    def read_chunks(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in chunks. Raises `BadInput` if the stream ends before."""
        while size:
            chunk = self._read_available(min(CHUNK_BYTES, size))
            if not chunk:
                raise BadInput(f"{self._url} ends within an entry: it was cut off")
            size -= len(chunk)
            yield chunk

    def skip_zeros(self) -> bool:
        """Skip blocks of zeros. Return True if the header of another tar follows."""
        while (block := self.peek(_BLOCK)) and not block.strip(b"\0"):
            self._quota.count_padding(len(self._read_available(len(block))))
        return is_tar(block)

    def read_to_end(self) -> None:
        """Read the rest of the stream, so that the decompressor verifies its checksum."""
        while chunk := self._read_available(CHUNK_BYTES):
            self._quota.count_padding(len(chunk))

    def _read_available(self, size: int) -> bytes:
        """Return at most `size` bytes, those that were peeked at first; no bytes at the end."""
        data, self._peeked = self._peeked[:size], self._peeked[size:]
        data = data or self._stream.read(size)
        self._position += len(data)
        return data
