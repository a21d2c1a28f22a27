"""Unpack archives: every format, told by content, into a folder that is there whole or not at all."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from packed import FILES, tar, zipped

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, Cancelled, RetryLater
from millpond.tasks.files.archives import unpack
from millpond.tasks.files.contract import FolderResult, Unpack
from millpond.tasks.files.storage import Storage

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
JOB = Unpack(source="in", target="out")


def unpacked(folder: Path) -> dict[str, bytes | None]:
    """Return the tree below a folder: files with their content, and empty folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


@pytest.mark.parametrize("packer", PACKERS)
def test_every_tar_is_unpacked(store: Storage, root: Path, context: Context, packer: str) -> None:
    """A tar, plain or compressed, is told by its content and unpacked, long and foreign names included."""
    (root / "in").write_bytes(PACKERS[packer](tar(*FILES.items())))
    total = sum(len(content or b"") for content in FILES.values())
    assert unpack(JOB, store, context) == FolderResult(target="out", files=4, bytes=total)
    assert unpacked(root / "out") == FILES


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_header_is_read(store: Storage, root: Path, context: Context, form: int) -> None:
    """The formats of fifty years of tar are read."""
    (root / "in").write_bytes(tar(("./", None), ("./a/b.txt", b"x"), ("ä", b"y"), form=form))
    unpack(JOB, store, context)
    assert unpacked(root / "out") == {"a/b.txt": b"x", "ä": b"y"}


def test_a_tar_without_a_mark_is_told_by_its_checksum(store: Storage, root: Path, context: Context) -> None:
    """The tar of 1979 has no mark of its own."""
    old = bytearray(tar(("a", b"x"), form=tarfile.USTAR_FORMAT))
    old[257:265] = bytes(8)
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    (root / "in").write_bytes(old)
    unpack(JOB, store, context)
    assert unpacked(root / "out") == {"a": b"x"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_every_usual_zip_is_unpacked(store: Storage, root: Path, context: Context, method: int) -> None:
    """A zip is unpacked whatever its usual methods and whatever its name."""
    (root / "in").write_bytes(zipped(*FILES.items(), method=method))
    assert unpack(JOB, store, context).files == 4
    assert unpacked(root / "out") == FILES


def test_an_archive_in_an_archive_stays_packed(store: Storage, root: Path, context: Context) -> None:
    """Only the outermost archive is unpacked, so no depth of them can be a bomb."""
    inner = zipped(("x", b"y"))
    (root / "in").write_bytes(zipped(("inner.zip", inner)))
    unpack(JOB, store, context)
    assert unpacked(root / "out") == {"inner.zip": inner}


def test_streams_one_after_the_other_are_one(store: Storage, root: Path, context: Context) -> None:
    """Output of parallel compressors, and zero padding behind it, is read to the end."""
    content = tar(*FILES.items())
    for packer in ("gzip", "bzip2", "xz", "zstd"):
        pack = PACKERS[packer]
        (root / "in").write_bytes(pack(content[:70_000]) + pack(content[70_000:]) + bytes(64))
        unpack(Unpack(source="in", target=packer), store, context)
        assert unpacked(root / packer) == FILES


def test_names_in_another_encoding_need_to_be_told(store: Storage, root: Path, context: Context) -> None:
    """A name that is no UTF-8 is an error that names the entry, until `encoding` is given."""
    for number, (content, encoding, name) in enumerate(
        [
            (zipped(("ab", b"x")).replace(b"ab", "ü1".encode("cp437")), "cp437", "ü1"),
            (zipped(("ab", b"x")).replace(b"ab", "日".encode("cp932")), "cp932", "日"),
            (tar(("é", b"x"), form=tarfile.GNU_FORMAT, encoding="latin-1"), "latin-1", "é"),
        ]
    ):
        (root / "in").write_bytes(content)
        with pytest.raises(BadInput, match=r"entry 1 \(.*\) has a name that is not UTF-8: give the encoding"):
            unpack(JOB, store, context)
        unpack(Unpack(source="in", target=f"out{number}", encoding=encoding), store, context)
        assert unpacked(root / f"out{number}") == {name: b"x"}


def test_info_zips_unicode_name_is_taken(store: Storage, root: Path, context: Context) -> None:
    """The name in the Unicode field goes before the one in an old encoding."""
    import struct
    import zlib

    info = zipfile.ZipInfo("ab")
    field = b"\x01" + struct.pack("<L", zlib.crc32(b"\x81b")) + "üb".encode()
    info.extra = struct.pack("<HH", 0x7075, len(field)) + field
    (root / "in").write_bytes(zipped((info, b"x")).replace(b"ab", b"\x81b"))
    unpack(JOB, store, context)
    assert unpacked(root / "out") == {"üb": b"x"}


def test_running_twice_leaves_what_is_there(store: Storage, root: Path, context: Context) -> None:
    """A second run finds its work done; other content in its place is never mixed with it."""
    (root / "in").write_bytes(zipped(*FILES.items()))
    assert unpack(JOB, store, context) == unpack(JOB, store, context)
    (root / "out" / "a.txt").write_bytes(b"changed")
    with pytest.raises(BadInput, match="holds something else"):
        unpack(JOB, store, context)
    assert (root / "out" / "a.txt").read_bytes() == b"changed"


def test_neither_owners_nor_modes_come_along(store: Storage, root: Path, context: Context) -> None:
    """A file that claims to run as root is a plain file."""
    member = tarfile.TarInfo("tool")
    member.mode, member.uid = 0o6777, 12345
    (root / "in").write_bytes(tar((member, b"#!/bin/sh")))
    unpack(JOB, store, context)
    status = (root / "out" / "tool").stat()
    assert status.st_mode & 0o7111 == 0
    assert status.st_uid != 12345


@pytest.mark.parametrize("content", [tar(*FILES.items()), zipped(*FILES.items())])
def test_cancelling_stops_and_leaves_nothing(store: Storage, root: Path, content: bytes) -> None:
    """A cancelled task stops between two chunks; progress is in bytes of the archive otherwise."""
    (root / "in").write_bytes(content)
    seen: list[tuple[int, int | None]] = []
    with pytest.raises(Cancelled):
        unpack(
            JOB, store, Context(is_cancelled=lambda: len(seen) > 2, report=lambda *done: seen.append(done))
        )
    assert [path.name for path in root.iterdir()] == ["in"]
    unpack(JOB, store, Context(report=lambda *done: seen.append(done)))
    assert 0 < (seen[-1][0]) <= len(content)
    assert {total for _, total in seen} == {len(content)}


def test_a_full_disk_leaves_nothing(store: Storage, root: Path, small_disk: Path, context: Context) -> None:
    """A disk that fills up is tried again later, and holds nothing until then."""
    (root / "in").write_bytes(zipped(("a", b"x" * 600_000), ("b/c", bytes(range(256)) * 3_000)))
    with pytest.raises(RetryLater, match="no room left"):
        unpack(Unpack(source="in", target="disk/out"), store, context)
    assert list(small_disk.iterdir()) == []
