"""Read a zip in limited memory: `zipfile` reads the directory, and the entries are decompressed here.

zipfile does not limit what one read of a bzip2 or LZMA entry returns. Before Python 3.11.8 it also allowed
entries that share bytes ("A better zip bomb", Fifield 2019).
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.archive_limits import CHUNK_BYTES, Entry, decode_name, entry_label
from millpond.tasks.files.decompression import DecompressedStream, Readable, make_raw_lzma_decompressor
from millpond.tasks.files.escaping import escape_untrusted
from millpond.tasks.settings import Files

_STORED, _LZMA = zipfile.ZIP_STORED, zipfile.ZIP_LZMA
#: The format of each compression method that is supported; "" for no compression.
_CODECS = {
    _STORED: "",
    zipfile.ZIP_DEFLATED: "deflate",
    zipfile.ZIP_BZIP2: "bzip2",
    _LZMA: "lzma",
    93: "zstd",
    95: "xz",
}
#: The names of other compression methods (APPNOTE.TXT, 4.4.5).
_OTHER_METHODS = {1: "shrink", 6: "implode", 9: "Deflate64", 98: "PPMd", 99: "AES encryption"}
#: The numbers of the systems that store a Unix mode: Unix and macOS.
_UNIX_SYSTEMS = (3, 19)
_DOS_FOLDER = 0x10
#: The mark of the end record of a zip, and the maximum length of the record with its comment.
_END_MARK, _END_BYTES = b"PK\x05\x06", 22 + 65_535
#: The mark of an entry in the directory, and of the header before an entry's content.
_ENTRY_MARK, _LOCAL_MARK = b"PK\x01\x02", b"PK\x03\x04"
#: The header before an entry's content: its mark, and the lengths of its name and of its extra fields.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
#: Flags of an entry.
_ENCRYPTED, _UTF8_NAME = 0x1, 0x800
#: The tag of Info-ZIP's field with a name in UTF-8.
_UNICODE_PATH = 0x7075
#: The maximum of the average length of an entry in the directory. Real names and comments are short.
_DIRECTORY_BYTES_PER_ENTRY = 512
#: The errors that zipfile raises for a damaged directory.
_DAMAGE = (
    *(zipfile.BadZipFile, ValueError, OverflowError, LookupError),
    *(EOFError, NotImplementedError, struct.error),
)


def read_entries(file: BinaryIO, url: str, encoding: str | None, limits: Files) -> Iterator[Entry]:
    """Return the entries in the order of their content. `encoding` is that of names without UTF-8.

    Raises `BadInput` for a damaged directory or an entry that cannot be unpacked, and `TooLarge` for too many
    entries. A damaged entry raises `BadInput` when its content is read.
    """
    try:
        directory = zipfile.ZipFile(cast(Any, _DirectoryFile(file, url, limits)))
    except _DAMAGE as error:
        raise BadInput(f"{url} is no whole zip: {escape_untrusted(str(error))}") from error
    entries = [
        _make_entry(info, number, url, encoding) for number, info in enumerate(directory.infolist(), 1)
    ]
    entries.sort(key=lambda entry: entry.info.header_offset)
    offsets = _find_content_offsets(file, entries, directory.start_dir)
    return (
        Entry(entry.name, entry.label, None if entry.is_folder else _read_content(file, entry, offset))
        for entry, offset in zip(entries, offsets, strict=True)
    )


@dataclass(frozen=True)
class _ZipEntry:
    """An entry of the directory. `label` is the beginning of the errors about it."""

    info: zipfile.ZipInfo
    name: str
    raw_name: bytes
    label: str

    @property
    def is_folder(self) -> bool:
        """True if its name ends with a slash, or if it is empty and its attributes are those of a folder."""
        is_labelled = self.info.external_attr & _DOS_FOLDER or stat.S_ISDIR(_find_unix_mode(self.info))
        return self.name.endswith("/") or bool(is_labelled and not self.info.file_size)


def is_zip(file: BinaryIO) -> bool:
    """True if a file ends as a zip. Its beginning may be other data, as in a self-extracting archive.

    The position is at the beginning of the file afterwards.
    """
    file.seek(max(0, file.seek(0, 2) - _END_BYTES))
    has_end = _END_MARK in file.read(_END_BYTES)
    file.seek(0)
    return has_end


def _find_unix_mode(info: zipfile.ZipInfo) -> int:
    """Return the Unix mode of an entry; 0 if a system without such modes has made it."""
    return info.external_attr >> 16 if info.create_system in _UNIX_SYSTEMS else 0


def _make_entry(info: zipfile.ZipInfo, number: int, url: str, encoding: str | None) -> _ZipEntry:
    """Return an entry of the directory with its name. Raises `BadInput` for one that cannot be unpacked."""
    is_utf8 = bool(info.flag_bits & _UTF8_NAME)
    raw_name = info.orig_filename.encode("utf-8" if is_utf8 else "cp437")
    name = _find_unicode_name(info.extra, raw_name)
    name = name or decode_name(raw_name, None if is_utf8 else encoding, number, url)
    label = entry_label(url, number, name)
    if info.flag_bits & _ENCRYPTED:
        raise BadInput(f"{label} is encrypted: unpack it by hand, with its password")
    # An entry with the mode of a pipe is accepted: its content was read from a pipe.
    if stat.S_ISLNK(_find_unix_mode(info)):
        raise BadInput(f"{label} is a symbolic link: only files and folders are unpacked")
    if info.compress_type not in _CODECS:
        method = _OTHER_METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise BadInput(f"{label} is compressed by a method not known here ({method}): use deflate")
    entry = _ZipEntry(info, name, raw_name, label)
    if entry.is_folder and info.file_size:
        raise BadInput(f"{label} is a folder with content of its own: refused, for it cannot be kept")
    return entry


def _find_unicode_name(extra: bytes, raw_name: bytes) -> str | None:
    """Return the name in Info-ZIP's Unicode field. Return None without such a field for this `raw_name`."""
    while len(extra) >= 4:
        tag, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        checksum = struct.pack("<L", zlib.crc32(raw_name))
        if tag == _UNICODE_PATH and len(field) > 5 and field[1:5] == checksum:
            try:
                return field[5:].decode()
            except UnicodeDecodeError:
                return None
    return None


def _find_content_offsets(file: BinaryIO, entries: list[_ZipEntry], directory_offset: int) -> list[int]:
    """Return the offset of each entry's content. The entries are in the order of their offsets.

    Raises `BadInput` if two entries, or an entry and the directory, share bytes.
    """
    offsets = []
    ends = [entry.info.header_offset for entry in entries] + [directory_offset]
    for entry, end in zip(entries, ends[1:], strict=True):
        header_offset = entry.info.header_offset
        file.seek(max(header_offset, 0))
        header = file.read(_LOCAL_HEADER.size)
        if header_offset < 0 or len(header) < _LOCAL_HEADER.size or header[:4] != _LOCAL_MARK:
            raise BadInput(
                f"{entry.label} is not where the directory says: the archive is damaged or cut off"
            )
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if file.read(name_bytes) != entry.raw_name:
            raise BadInput(f"{entry.label} has another name in its own header: refused")
        offset = header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        if offset + entry.info.compress_size > end:
            raise BadInput(
                f"{entry.label} shares bytes with the next entry: damaged, or a decompression bomb"
            )
        offsets.append(offset)
    return offsets


def _read_content(file: BinaryIO, entry: _ZipEntry, offset: int) -> Iterator[bytes]:
    """Yield the content of a file in chunks.

    Raises `BadInput` if it is damaged, or if its length or checksum is not that of the directory.
    """
    file.seek(offset)
    content: Readable = _Slice(file, entry.info.compress_size)
    codec: str | Callable[[], Any] = _CODECS[entry.info.compress_type]
    is_lzma = codec == "lzma"
    if is_lzma:
        head = content.read(4)
        properties = content.read(int.from_bytes(head[2:4], "little"))
        codec = partial(make_raw_lzma_decompressor, properties, entry.label)
    if codec:
        content = DecompressedStream(content, codec, entry.label, multiple=False)
    length = checksum = 0
    # A stream of LZMA may have no end mark.
    while (length < entry.info.file_size or not is_lzma) and (chunk := content.read(CHUNK_BYTES)):
        length += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    if (length, checksum) != (entry.info.file_size, entry.info.CRC):
        raise BadInput(f"{entry.label} is damaged: its length or checksum is wrong")


class _Slice:
    """The next `size` bytes of a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._remaining = file, size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._remaining))
        self._remaining -= len(data)
        return data


class _DirectoryFile:
    """The file from which zipfile reads the directory, whose size is limited because it is all in memory."""

    def __init__(self, file: BinaryIO, url: str, limits: Files) -> None:
        self._file, self._url, self._limits = file, url, limits

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes. Raises `TooLarge` for a directory of too many entries."""
        # 128 KiB are more than the end record with its comment, which zipfile reads, too.
        limit = 128 * 1024 + self._limits.max_entries * _DIRECTORY_BYTES_PER_ENTRY
        data = self._file.read(min(size, limit + 1) if size >= 0 else limit + 1)
        if len(data) > limit or data.count(_ENTRY_MARK) > self._limits.max_entries:
            raise TooLarge(f"{self._url} has over {self._limits.max_entries} entries (max_entries)")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
