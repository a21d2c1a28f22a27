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
from millpond.tasks.errors import BadInput, RetryLater
from millpond.tasks.files.archives import unpack
from millpond.tasks.files.contract import Unpack
from millpond.tasks.files.storage import Storage

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
JOB = Unpack(source="in", target="out")
Unpacked = Callable[..., dict[str, bytes | None]]


@pytest.mark.parametrize("packer", PACKERS)
def test_every_tar_is_unpacked(unpacked: Unpacked, packer: str) -> None:
    """A tar, plain or compressed, is told by its content and unpacked, long and foreign names included."""
    assert unpacked(PACKERS[packer](tar(*FILES.items()))) == FILES


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_header_is_read(unpacked: Unpacked, form: int) -> None:
    """The formats of fifty years of tar are read."""
    content = tar(("./", None), ("./a/b.txt", b"x"), ("ä", b"y"), form=form)
    assert unpacked(content) == {"a/b.txt": b"x", "ä": b"y"}


def test_a_tar_without_a_mark_is_told_by_its_checksum(unpacked: Unpacked) -> None:
    """The tar of 1979 has no mark of its own."""
    old = bytearray(tar(("a", b"x"), form=tarfile.USTAR_FORMAT))
    old[257:265] = bytes(8)
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    assert unpacked(old) == {"a": b"x"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_every_usual_zip_is_unpacked(unpacked: Unpacked, method: int) -> None:
    """A zip is unpacked whatever its usual methods and whatever its name."""
    assert unpacked(zipped(*FILES.items(), method=method)) == FILES


def test_an_archive_in_an_archive_stays_packed(unpacked: Unpacked) -> None:
    """Only the outermost archive is unpacked, so no depth of them can be a bomb."""
    inner = zipped(("x", b"y"))
    assert unpacked(zipped(("inner.zip", inner))) == {"inner.zip": inner}


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_streams_one_after_the_other_are_one(unpacked: Unpacked, packer: str) -> None:
    """Output of parallel compressors, and zero padding behind it, is read to the end."""
    content, pack = tar(*FILES.items()), PACKERS[packer]
    assert unpacked(pack(content[:70_000]) + pack(content[70_000:]) + bytes(64)) == FILES


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


@pytest.mark.parametrize("content", [tar(*FILES.items()), zipped(*FILES.items())], ids=["tar", "zip"])
def test_progress_is_in_bytes_of_the_archive(store: Storage, root: Path, content: bytes) -> None:
    """It never passes the archive's length, however much comes out of it."""
    (root / "in").write_bytes(content)
    seen: list[tuple[int, int | None]] = []
    unpack(JOB, store, Context(report=lambda *done: seen.append(done)))
    assert 0 < (seen[-1][0]) <= len(content)
    assert {total for _, total in seen} == {len(content)}


def test_a_full_disk_leaves_nothing(store: Storage, root: Path, small_disk: Path, context: Context) -> None:
    """A disk that fills up is tried again later, and holds nothing until then."""
    (root / "in").write_bytes(zipped(("a", b"x" * 600_000), ("b/c", bytes(range(256)) * 3_000)))
    with pytest.raises(RetryLater, match="no room left"):
        unpack(Unpack(source="in", target="disk/out"), store, context)
    assert list(small_disk.iterdir()) == []
