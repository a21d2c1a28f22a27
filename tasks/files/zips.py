"""Walk through a zip in bounded memory: `zipfile` reads the directory, the entries are decompressed here.

zipfile itself lets a bzip2 or LZMA entry decide how large one read gets, and before Python 3.11.8 let
entries share bytes ("A better zip bomb", Fifield 2019).
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.archive_limits import CHUNK_BYTES, Entry, decoded
from millpond.tasks.files.folders import shown
from millpond.tasks.files.streams import Decompressed, Readable
from millpond.tasks.settings import Files

_CODECS = {zipfile.ZIP_STORED: "", zipfile.ZIP_DEFLATED: "deflate", zipfile.ZIP_BZIP2: "bzip2", 93: "zstd"}
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
_NAMED_IN_UTF8 = 0x800
_UNICODE_PATH = 0x7075
#: What an entry takes in the directory at most, on average; names and comments are short in practice.
_DIRECTORY_BYTES_PER_ENTRY = 512
_DAMAGE = (
    zipfile.BadZipFile,
    ValueError,
    OverflowError,
    LookupError,
    EOFError,
    NotImplementedError,
    struct.error,
)


def entries(file: BinaryIO, url: str, encoding: str | None, limits: Files) -> Iterator[Entry]:
    """Return what the zip holds, in the order of its bytes; raise `BadInput` for what its directory tells."""
    try:
        directory = zipfile.ZipFile(cast(Any, _Directory(file, url, limits)))
    except _DAMAGE as error:
        raise BadInput(f"{url} is no whole zip: {shown(str(error))}") from error
    found = [_found(info, number, url, encoding) for number, info in enumerate(directory.infolist(), 1)]
    found.sort(key=lambda entry: entry.info.header_offset)
    begins = _content_begins(file, found, directory.start_dir)
    return (
        Entry(each.name, None if each.name.endswith("/") else _content(file, each, begin))
        for each, begin in zip(found, begins, strict=True)
    )


@dataclass(frozen=True)
class _Found:
    info: zipfile.ZipInfo
    name: str
    raw_name: bytes
    where: str


def _found(info: zipfile.ZipInfo, number: int, url: str, encoding: str | None) -> _Found:
    """Judge an entry by what the directory says of it."""
    in_utf8 = bool(info.flag_bits & _NAMED_IN_UTF8)
    raw = info.orig_filename.encode("utf-8" if in_utf8 else "cp437")
    name = _unicode_path(info.extra, raw) or decoded(raw, None if in_utf8 else encoding, number, url)
    where = f"{url}, entry {number} ({shown(name)})"
    if info.flag_bits & _ENCRYPTED:
        raise BadInput(f"{where} is encrypted: unpack it by hand, with its password")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a symbolic link" if kind == stat.S_IFLNK else "a device, pipe or socket"
        raise BadInput(f"{where} is {what}: only files and folders are unpacked")
    if info.compress_type not in _CODECS:
        raise BadInput(
            f"{where} is compressed by a method not known here ({info.compress_type}): use deflate"
        )
    return _Found(info, name, raw, where)


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the name in Info-ZIP's Unicode field, if there is one and it is of this entry."""
    while len(extra) >= 4:
        tag, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if tag == _UNICODE_PATH and len(field) > 5 and field[1:5] == struct.pack("<L", zlib.crc32(raw)):
            try:
                return field[5:].decode()
            except UnicodeDecodeError:
                return None
    return None


def _content_begins(file: BinaryIO, found: list[_Found], directory_begins: int) -> list[int]:
    """Return where each entry's bytes begin; no two entries may share any, nor with the directory."""
    begins = []
    ends = [entry.info.header_offset for entry in found] + [directory_begins]
    for entry, end in zip(found, ends[1:], strict=True):
        file.seek(max(entry.info.header_offset, 0))
        header = file.read(_LOCAL.size)
        if entry.info.header_offset < 0 or len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
            raise BadInput(
                f"{entry.where} is not where the directory says: the archive is damaged or cut off"
            )
        _, name_bytes, extra_bytes = _LOCAL.unpack(header)
        if file.read(name_bytes) != entry.raw_name:
            raise BadInput(f"{entry.where} has another name in its own header: refused")
        begin = entry.info.header_offset + _LOCAL.size + name_bytes + extra_bytes
        if begin + entry.info.compress_size > end:
            raise BadInput(
                f"{entry.where} shares bytes with the next entry: damaged, or a decompression bomb"
            )
        begins.append(begin)
    return begins


def _content(file: BinaryIO, entry: _Found, begin: int) -> Iterator[bytes]:
    """Yield a file's bytes; raise `BadInput` unless length and checksum are those of the directory."""
    file.seek(begin)
    packed: Readable = _Slice(file, entry.info.compress_size)
    codec = _CODECS[entry.info.compress_type]
    content = Decompressed(packed, codec, entry.where, many=False) if codec else packed
    length = checksum = 0
    while chunk := content.read(CHUNK_BYTES):
        length += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    if (length, checksum) != (entry.info.file_size, entry.info.CRC):
        raise BadInput(f"{entry.where} is damaged: its length or checksum is wrong")


class _Slice:
    """Read the next bytes of a file, so many and no more."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


class _Directory:
    """Be the file that zipfile reads the directory from, which it holds whole: refuse a large one."""

    def __init__(self, file: BinaryIO, url: str, limits: Files) -> None:
        self._file, self._url, self._limits = file, url, limits

    def read(self, size: int = -1) -> bytes:
        limit = 128 * 1024 + self._limits.max_entries * _DIRECTORY_BYTES_PER_ENTRY
        data = self._file.read(min(size, limit + 1) if size >= 0 else limit + 1)
        if len(data) > limit or data.count(b"PK\x01\x02") > self._limits.max_entries:
            raise TooLarge(f"{self._url} has over {self._limits.max_entries} entries (max_entries)")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
