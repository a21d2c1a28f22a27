"""Zips as real programs write them are read, or refused by their format and not as damaged."""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_makers import make_zip, run_program

Unpacked = Callable[..., dict[str, bytes | None]]
Refusal = Callable[..., str]


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK, 0])
def test_the_content_of_an_entry_decides_and_not_its_label(unpacked: Unpacked, kind: int) -> None:
    """An entry read from a pipe is labelled as a pipe, and is a file."""
    entry = zipfile.ZipInfo("-")
    entry.create_system, entry.external_attr = 3, (kind | 0o600) << 16
    assert unpacked(make_zip((entry, b"hello\n"))) == {"-": b"hello\n"}


def test_a_mode_from_another_system_is_none(unpacked: Unpacked) -> None:
    """The upper bits of an entry from DOS are no mode, even where they look like a link's."""
    entry = zipfile.ZipInfo("a")
    entry.create_system, entry.external_attr = 0, 0o120777 << 16
    assert unpacked(make_zip((entry, b"x"))) == {"a": b"x"}


def test_zip_from_a_pipe_and_into_one(unpacked: Unpacked, tmp_path: Path) -> None:
    """`zip -` writes an entry's length after its content, and `-` as its name."""
    assert unpacked(run_program("zip", "-q", "-", "-", folder=tmp_path, given=b"hello\n")) == {
        "-": b"hello\n"
    }
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_bytes(b"x" * 100_000)
    content = run_program("zip", "-q", "-r", "-", "a", folder=tmp_path)
    assert unpacked(content) == {"a/b.txt": b"x" * 100_000}


class _Pipe(io.RawIOBase):
    """A file that can only be written, from its beginning to its end."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.content += data
        return len(data)


@pytest.mark.parametrize("method", [0, 8, 12, 14])
@pytest.mark.parametrize("is_large", [False, True])
def test_lengths_behind_the_content_and_zip64(unpacked: Unpacked, method: int, is_large: bool) -> None:
    """Data descriptors with lengths of four and eight bytes are read, for each method that Python writes."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:  # type: ignore[type-var]
        for name in ("a", "b/c"):
            with archive.open(name, "w", force_zip64=is_large) as file:
                file.write(b"hello " * 9_000)
    assert unpacked(pipe.content) == {"a": b"hello " * 9_000, "b/c": b"hello " * 9_000}


@pytest.mark.parametrize("method", ["LZMA", "BZip2", "Deflate", "Copy"])
def test_what_7z_writes(unpacked: Unpacked, tmp_path: Path, method: str) -> None:
    """A zip of 7-Zip is read. Its LZMA streams have no end mark."""
    (tmp_path / "a.txt").write_bytes(os.urandom(1_000) + b"x" * 300_000)
    run_program("7z", "a", "-tzip", f"-mm={method}", "out.zip", "a.txt", folder=tmp_path)
    content = (tmp_path / "out.zip").read_bytes()
    assert unpacked(content) == {"a.txt": (tmp_path / "a.txt").read_bytes()}


def test_an_lzma_entry_that_is_damaged_is_refused(refusal: Refusal) -> None:
    """Neither its properties nor its content are trusted."""
    content = make_zip(("a", b"hello " * 9_000), method=zipfile.ZIP_LZMA)
    begins = 30 + 1
    for at, said in ((begins + 4, "properties"), (begins + 8, "dictionary of"), (begins + 30, "damaged")):
        assert said in refusal(content[:at] + b"\xff" + content[at + 1 :])


@pytest.mark.parametrize("is_adjusted", [False, True])
@pytest.mark.parametrize(
    "stub", [b"#!/bin/sh\nexit 1\n", b"MZ" + bytes(70_000), b"\x7fELF" + bytes(5_000), b"PK00"]
)
def test_bytes_may_lie_before_the_first_entry(unpacked: Unpacked, stub: bytes, is_adjusted: bool) -> None:
    """A self-extracting archive is read, whether its offsets count from the file's beginning or the zip's."""
    plain = make_zip(("a", b"hello"), ("b/c", b"x" * 5_000))
    content = stub + plain
    if is_adjusted:
        with zipfile.ZipFile(io.BytesIO(plain)) as archive:
            directory, entries = archive.start_dir, archive.infolist()
        content = bytearray(content)
        at = len(stub) + directory
        for entry in entries:
            struct.pack_into("<I", content, at + 42, entry.header_offset + len(stub))
            at += 46 + len(entry.filename) + len(entry.extra)
        struct.pack_into("<I", content, at + 16, directory + len(stub))
        content = bytes(content)
    assert unpacked(content) == {"a": b"hello", "b/c": b"x" * 5_000}


@pytest.mark.parametrize("behind", [b"", bytes(100), b"a signature"])
def test_bytes_may_lie_behind_the_directory(unpacked: Unpacked, behind: bytes) -> None:
    """A comment, padding, or other data after the directory is ignored."""
    assert unpacked(make_zip(("a", b"hello")) + behind) == {"a": b"hello"}


@pytest.mark.parametrize(
    ("system", "attributes"), [(3, 0o040755 << 16), (0, 0x10), (3, 0o040755 << 16 | 0x10)]
)
def test_a_folder_may_have_no_slash(unpacked: Unpacked, system: int, attributes: int) -> None:
    """The attributes of an empty entry decide whether it is a folder."""
    folder = zipfile.ZipInfo("dir")
    folder.create_system, folder.external_attr = system, attributes
    assert unpacked(make_zip((folder, b""), ("dir/a.txt", b"x"))) == {"dir/a.txt": b"x"}
    assert unpacked(make_zip((folder, b""), ("b", b"x"))) == {"dir": None, "b": b"x"}
    assert unpacked(make_zip((folder, b"content"))) == {"dir": b"content"}


def test_a_folder_with_content_is_refused(refusal: Refusal) -> None:
    """The content of a folder's entry could not be kept, so the archive is refused."""
    assert "is a folder with content of its own" in refusal(make_zip(("dir/", b"content")))


def _renamed(name: bytes, flags: int = 0) -> bytes:
    content = make_zip(("?" * len(name), b"x")).replace(b"?" * len(name), name)
    at = content.index(b"PK\x01\x02") + 8
    return (
        content[:6]
        + flags.to_bytes(2, "little")
        + content[8:at]
        + flags.to_bytes(2, "little")
        + content[at + 2 :]
    )


def test_names_in_every_encoding(unpacked: Unpacked, refusal: Refusal) -> None:
    """A name may be UTF-8, with or without its flag, be in Info-ZIP's field, or have the job's encoding."""
    assert unpacked(_renamed("Übung".encode(), flags=0x800)) == {"Übung": b"x"}
    assert unpacked(_renamed("Übung".encode())) == {"Übung": b"x"}
    raw = "Übung".encode("cp437")
    message = refusal(_renamed(raw))
    assert "has a name that is not UTF-8: give the encoding of its names" in message
    assert "--encoding cp437" in message
    assert unpacked(_renamed(raw), encoding="cp437") == {"Übung": b"x"}
    assert unpacked(_renamed("テスト".encode("cp932")), encoding="cp932") == {"テスト": b"x"}
    entry = zipfile.ZipInfo("ab")
    field = struct.pack("<BL", 1, zlib.crc32(b"\x81b")) + "üb".encode()
    entry.extra = struct.pack("<HH", 0x7075, len(field)) + field
    assert unpacked(make_zip((entry, b"x")).replace(b"ab", b"\x81b")) == {"üb": b"x"}
    assert "no text encoding is called 'klingon'" in refusal(_renamed(raw), encoding="klingon")
