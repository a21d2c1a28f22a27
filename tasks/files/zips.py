"""Read a zip in bounded memory: `zipfile` reads the directory, the entries are decompressed here.

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
from millpond.tasks.files.archive_limits import CHUNK_BYTES, Entry, decode_name
from millpond.tasks.files.folders import printable
from millpond.tasks.files.streams import Decompressed, Readable, raw_lzma_decompressor
from millpond.tasks.settings import Files

_STORED, _LZMA = zipfile.ZIP_STORED, zipfile.ZIP_LZMA
_CODECS = {
    _STORED: "",
    zipfile.ZIP_DEFLATED: "deflate",
    zipfile.ZIP_BZIP2: "bzip2",
    _LZMA: "lzma",
    93: "zstd",
    95: "xz",
}
#: The names of other methods (APPNOTE.TXT, 4.4.5).
_METHODS = {1: "shrink", 6: "implode", 9: "Deflate64", 98: "PPMd", 99: "AES encryption"}
#: The systems whose entries have a Unix mode: Unix and macOS.
_WITH_MODE = (3, 19)
_DOS_FOLDER = 0x10
#: The end of a zip, with the longest comment.
_END_MARK, _END_BYTES = b"PK\x05\x06", 22 + 65_535
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
_NAMED_IN_UTF8 = 0x800
_UNICODE_PATH = 0x7075
#: Bytes of an entry in the directory at most, on average; names and comments are short in practice.
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


def read_entries(file: BinaryIO, url: str, encoding: str | None, limits: Files) -> Iterator[Entry]:
    """Return the entries in the order of their bytes. Raises `BadInput` for a directory that is refused."""
    try:
        directory = zipfile.ZipFile(cast(Any, _Directory(file, url, limits)))
    except _DAMAGE as error:
        raise BadInput(f"{url} is no whole zip: {printable(str(error))}") from error
    entries = [
        _check_entry(info, number, url, encoding) for number, info in enumerate(directory.infolist(), 1)
    ]
    entries.sort(key=lambda entry: entry.info.header_offset)
    begins = _content_offsets(file, entries, directory.start_dir)
    return (
        Entry(each.name, None if each.is_folder else _file_content(file, each, begin))
        for each, begin in zip(entries, begins, strict=True)
    )


@dataclass(frozen=True)
class _ZipEntry:
    """An entry of the directory: its name and size, the place and the compression of its content."""

    info: zipfile.ZipInfo
    name: str
    raw_name: bytes
    where: str

    @property
    def is_folder(self) -> bool:
        """True if a slash ends its name, or if a label declares a folder and there is no content."""
        labelled = self.info.external_attr & _DOS_FOLDER or stat.S_ISDIR(_unix_mode(self.info))
        return self.name.endswith("/") or bool(labelled and not self.info.file_size)


def is_zip(file: BinaryIO) -> bool:
    """True if the file ends as a zip does, after anything: a program that unpacks itself."""
    file.seek(max(0, file.seek(0, 2) - _END_BYTES))
    has_end = _END_MARK in file.read(_END_BYTES)
    file.seek(0)
    return has_end


def _unix_mode(info: zipfile.ZipInfo) -> int:
    """Return an entry's mode on Unix, 0 if it comes from another system."""
    return info.external_attr >> 16 if info.create_system in _WITH_MODE else 0


def _check_entry(info: zipfile.ZipInfo, number: int, url: str, encoding: str | None) -> _ZipEntry:
    """Return an entry of the directory. Raises `BadInput` for one that is not unpacked here."""
    in_utf8 = bool(info.flag_bits & _NAMED_IN_UTF8)
    raw = info.orig_filename.encode("utf-8" if in_utf8 else "cp437")
    name = _unicode_path(info.extra, raw) or decode_name(raw, None if in_utf8 else encoding, number, url)
    where = f"{url}, entry {number} ({printable(name)})"
    if info.flag_bits & _ENCRYPTED:
        raise BadInput(f"{where} is encrypted: unpack it by hand, with its password")
    # An entry that was read from a pipe is labelled as one, and its content is a file's.
    if stat.S_ISLNK(_unix_mode(info)):
        raise BadInput(f"{where} is a symbolic link: only files and folders are unpacked")
    if info.compress_type not in _CODECS:
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise BadInput(f"{where} is compressed by a method not known here ({method}): use deflate")
    entry = _ZipEntry(info, name, raw, where)
    if entry.is_folder and info.file_size:
        raise BadInput(f"{where} is a folder with content of its own: refused, for it cannot be kept")
    return entry


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


def _content_offsets(file: BinaryIO, entries: list[_ZipEntry], directory_begins: int) -> list[int]:
    """Return the offset of each entry's content.

    No two entries may share bytes, nor an entry and the directory.
    """
    begins = []
    ends = [entry.info.header_offset for entry in entries] + [directory_begins]
    for entry, end in zip(entries, ends[1:], strict=True):
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


def _file_content(file: BinaryIO, entry: _ZipEntry, begin: int) -> Iterator[bytes]:
    """Yield a file's bytes. Raises `BadInput` unless length and checksum are those of the directory."""
    file.seek(begin)
    packed: Readable = _Slice(file, entry.info.compress_size)
    codec = _CODECS[entry.info.compress_type]
    content = Decompressed(packed, codec, entry.where, many=False) if codec else packed
    if codec == "lzma":
        head = packed.read(4)
        properties = packed.read(int.from_bytes(head[2:4], "little"))
        content = Decompressed(
            packed, lambda: raw_lzma_decompressor(properties, entry.where), entry.where, many=False
        )
    length = checksum = 0
    # LZMA need not mark its end.
    while (length < entry.info.file_size or codec != "lzma") and (chunk := content.read(CHUNK_BYTES)):
        length += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    if (length, checksum) != (entry.info.file_size, entry.info.CRC):
        raise BadInput(f"{entry.where} is damaged: its length or checksum is wrong")


class _Slice:
    """The next bytes of a file, limited to the length of an entry."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


class _Directory:
    """The file as zipfile reads the directory from it, which it holds whole: a large one is refused."""

    def __init__(self, file: BinaryIO, url: str, limits: Files) -> None:
        self._file, self._url, self._limits = file, url, limits

    def read(self, size: int = -1) -> bytes:
        """Read from the directory of the archive. Raises `TooLarge` if it has too many entries."""
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
