"""Read a tar, front to back, in bounded memory. `tarfile` reads the headers, and nothing else."""

import tarfile
from collections.abc import Iterator
from typing import Any, cast

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.archive_limits import CHUNK_BYTES, Entry, Quota, decode_name
from millpond.tasks.files.folders import printable
from millpond.tasks.files.streams import Readable

#: The bound of one entry's headers, bytes; tarfile keeps long names and pax records whole.
MAX_HEADER_BYTES = 1024 * 1024
_BLOCK = tarfile.BLOCKSIZE
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
#: The label of an archive, of GNU tar, and the access rights of the next entry, of Solaris: neither is kept.
_NOT_KEPT = (b"V", b"A")
#: Of GNU tar: a folder with the names that it held when a backup was made.
_DUMPED_FOLDER = b"D"
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
#: The errors of tarfile for a damaged header, beside its own.
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, LookupError, RecursionError, EOFError, MemoryError)


def is_tar(head: bytes) -> bool:
    """True if a tar of any age begins with this block: its checksum must be right."""
    try:
        tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, *_DAMAGE):
        return False
    return True


def read_entries(stream: Readable, url: str, encoding: str | None, quota: Quota) -> Iterator[Entry]:
    """Yield the entries of the tar. Raises `BadInput` if it is damaged, cut off or has odd entries."""
    forward = _Forward(stream, url, quota)
    if not is_tar(forward.peek(_BLOCK)):
        raise BadInput(f"{url} holds no tar, by its first header: only archives are unpacked")
    return _kept_entries(forward, url, encoding)


def _kept_entries(forward: "_Forward", url: str, encoding: str | None) -> Iterator[Entry]:
    """Yield the files and folders of all archives in the stream, each checked and named."""
    number = 0
    while True:
        for member in _read_headers(forward, url, number):
            if member.type in _NOT_KEPT:
                continue
            number += 1
            name = _entry_name(member, encoding, number, url)
            _refuse_special(member, f"{url}, entry {number} ({printable(name)})")
            yield Entry(name, None if _is_folder(member) else _file_content(forward, member, url))
        # Several archives one after the other are one, as several streams of gzip are.
        if not forward.skip_zeros():
            break
    forward.read_to_end()


def _read_headers(forward: "_Forward", url: str, entries_before: int) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of one archive up to its end mark. `entries_before` entries came before it."""
    number = entries_before
    tar, member = _open_tar(forward, url)
    while member is not None:
        number += 1
        _repair_name(member, forward.last_block)
        yield member
        # tarfile keeps every member it has seen; none is needed again.
        cast(Any, tar).members.clear()
        member = _next_header(tar, forward, url)
    if forward.last_block.strip(b"\0") or not forward.last_block:
        raise BadInput(
            f"{url} ends without a tar's end mark: it was cut off, or entry {number + 1} is damaged"
        )


def _repair_name(member: tarfile.TarInfo, header: bytes) -> None:
    """Remove tarfile's addition to a name of GNU tar: the times of a backup, read as ustar's prefix."""
    name, prefix = (field.split(b"\0")[0] for field in (header[:100], header[345:500]))
    raw = member.name.encode("utf-8", "surrogateescape")
    added = raw.rstrip(b"/") == prefix + b"/" + name.rstrip(b"/")
    if prefix and added and header[257:265] == tarfile.GNU_MAGIC:
        member.name = name.decode("utf-8", "surrogateescape")


def _entry_name(member: tarfile.TarInfo, encoding: str | None, number: int, url: str) -> str:
    """Return an entry's name. Names in pax headers are UTF-8."""
    # A long path of a sparse file is in GNU tar's own form, and tarfile returns that.
    name = member.pax_headers.get("GNU.sparse.name", member.name)
    raw = name.encode("utf-8", "surrogateescape")
    in_utf8 = not {"path", "GNU.sparse.name"}.isdisjoint(member.pax_headers)
    return decode_name(raw, None if in_utf8 else encoding, number, url)


def _is_folder(member: tarfile.TarInfo) -> bool:
    return member.isdir() or member.type == _DUMPED_FOLDER


def _file_content(forward: "_Forward", member: tarfile.TarInfo, url: str) -> Iterator[bytes]:
    """Yield a file's bytes. The holes of a sparse file are zeros."""
    if member.sparse is None:
        yield from forward.chunks(member.size)
        return
    position = 0
    for offset, size in cast("list[tuple[int, int]]", member.sparse):
        if not size:
            continue
        if not 0 <= position <= offset or size < 0 or offset + size > member.size:
            raise BadInput(f"{url} has a sparse file whose parts overlap: the archive is damaged")
        yield from _zero_chunks(offset - position)
        yield from forward.chunks(size)
        position = offset + size
    yield from _zero_chunks(member.size - position)


def _zero_chunks(count: int) -> Iterator[bytes]:
    """Yield this many zero bytes, for the holes of a sparse file."""
    while count:
        chunk = bytes(min(count, CHUNK_BYTES))
        count -= len(chunk)
        yield chunk


def _refuse_special(member: tarfile.TarInfo, where: str) -> None:
    """Raise `BadInput` for an entry that is no file and no folder, or has a negative length."""
    if not _is_folder(member) and not member.issparse() and member.type not in _FILES:
        what = _KINDS.get(member.type, "of a kind that is not known here")
        raise BadInput(f"{where} is {what}: only files and folders are unpacked")
    if member.size < 0:
        raise BadInput(f"{where} has a negative length: the archive is damaged")


def _open_tar(forward: "_Forward", url: str) -> tuple[tarfile.TarFile, tarfile.TarInfo | None]:
    """Open the tar, which reads its first header."""
    forward.begin_header()
    try:
        tar = tarfile.TarFile(
            fileobj=cast(Any, forward), mode="r", encoding="utf-8", errors="surrogateescape"
        )
        return tar, tar.next()
    except _DAMAGE as error:
        raise _damaged_error(url, error) from error


def _next_header(tar: tarfile.TarFile, forward: "_Forward", url: str) -> tarfile.TarInfo | None:
    """Return the next entry. Return None at the end. Raises `BadInput` for a damaged archive."""
    forward.begin_header()
    try:
        return tar.next()
    except _DAMAGE as error:
        raise _damaged_error(url, error) from error


def _damaged_error(url: str, error: Exception) -> BadInput:
    return BadInput(f"{url} is no whole tar: {printable(str(error)) or type(error).__name__}")


class _Forward:
    """The file as tarfile reads headers from it: forwards only, in small parts."""

    def __init__(self, stream: Readable, url: str, quota: Quota) -> None:
        self._stream, self._url, self._quota = stream, url, quota
        self._ahead = b""
        self._position = 0
        self._header_bytes = 0
        self.last_block = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        """Skip the bytes up to `position`, as tarfile does for padding. Raises `BadInput`."""
        if position < self._position:
            raise BadInput(f"{self._url} has a header that points back: the archive is damaged")
        while self._position < position:
            skipped = len(self._read_available(min(CHUNK_BYTES, position - self._position)))
            self._quota.count_padding(skipped)
            if not skipped:
                return

    def read(self, size: int) -> bytes:
        """Return `size` bytes of a header, fewer only at the end. Raises `TooLarge`."""
        self._header_bytes += max(size, 0)
        if size < 0 or self._header_bytes > MAX_HEADER_BYTES:
            raise TooLarge(f"{self._url} has an entry whose headers are over {MAX_HEADER_BYTES} bytes")
        data = b""
        while len(data) < size and (part := self._read_available(size - len(data))):
            data += part
        self._quota.count_padding(len(data))
        if size == _BLOCK:
            self.last_block = data
        return data

    def peek(self, size: int) -> bytes:
        """Return the next bytes, to be read again."""
        while len(self._ahead) < size and (part := self._stream.read(size - len(self._ahead))):
            self._ahead += part
        return self._ahead[:size]

    def begin_header(self) -> None:
        """Reset the count of header bytes: the bytes read next belong to the next entry."""
        self._header_bytes = 0

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the content of the entry whose header was read last. Raises `BadInput`."""
        while size:
            chunk = self._read_available(min(CHUNK_BYTES, size))
            if not chunk:
                raise BadInput(f"{self._url} ends within an entry: it was cut off")
            size -= len(chunk)
            yield chunk

    def skip_zeros(self) -> bool:
        """Skip blocks of zeros. Return True if the header of another archive follows."""
        while (block := self.peek(_BLOCK)) and not block.strip(b"\0"):
            self._quota.count_padding(len(self._read_available(len(block))))
        return is_tar(block)

    def read_to_end(self) -> None:
        """Read to the end of the stream, so that a checksum there is verified."""
        while rest := self._read_available(CHUNK_BYTES):
            self._quota.count_padding(len(rest))

    def _read_available(self, size: int) -> bytes:
        """Return at most `size` bytes, first those that were peeked at. Empty bytes are the end."""
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        data = data or self._stream.read(size)
        self._position += len(data)
        return data
