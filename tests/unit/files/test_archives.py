"""An archive of any format, known by its content, is unpacked into a folder that is complete or missing."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from archive_makers import FILES, make_tar, make_zip

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
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
    """A tar, plain or compressed, is known by its content. Long names and names outside ASCII are kept."""
    assert unpacked(PACKERS[packer](make_tar(*FILES.items()))) == FILES


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_header_is_read(unpacked: Unpacked, form: int) -> None:
    """All three formats of tar headers are read."""
    content = make_tar(("./", None), ("./a/b.txt", b"x"), ("ä", b"y"), form=form)
    assert unpacked(content) == {"a/b.txt": b"x", "ä": b"y"}


def test_a_tar_without_a_mark_is_told_by_its_checksum(unpacked: Unpacked) -> None:
    """The first format of tar (1979) has no magic number."""
    old = bytearray(make_tar(("a", b"x"), form=tarfile.USTAR_FORMAT))
    old[257:265] = bytes(8)
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    assert unpacked(old) == {"a": b"x"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_every_usual_zip_is_unpacked(unpacked: Unpacked, method: int) -> None:
    """The methods of compression that zips usually have are read, and the file's name does not matter."""
    assert unpacked(make_zip(*FILES.items(), method=method)) == FILES


def test_an_archive_in_an_archive_stays_packed(unpacked: Unpacked) -> None:
    """Only the outermost archive is unpacked, so no depth of them can be a bomb."""
    inner = make_zip(("x", b"y"))
    assert unpacked(make_zip(("inner.zip", inner))) == {"inner.zip": inner}


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_streams_one_after_the_other_are_one(unpacked: Unpacked, packer: str) -> None:
    """Streams that parallel compressors write are read as one, and zero padding is skipped."""
    content, pack = make_tar(*FILES.items()), PACKERS[packer]
    assert unpacked(pack(content[:70_000]) + pack(content[70_000:]) + bytes(64)) == FILES


def test_running_twice_leaves_what_is_there(store: Storage, root: Path, context: Context) -> None:
    """A second run is no error. A target with other content is refused, and stays as it is."""
    (root / "in").write_bytes(make_zip(*FILES.items()))
    assert unpack(JOB, store, context) == unpack(JOB, store, context)
    (root / "out" / "a.txt").write_bytes(b"changed")
    with pytest.raises(BadInput, match="holds something else"):
        unpack(JOB, store, context)
    assert (root / "out" / "a.txt").read_bytes() == b"changed"


def test_neither_owners_nor_modes_come_along(store: Storage, root: Path, context: Context) -> None:
    """Neither the setuid bit nor the owner in an archive is applied."""
    member = tarfile.TarInfo("tool")
    member.mode, member.uid = 0o6777, 12345
    (root / "in").write_bytes(make_tar((member, b"#!/bin/sh")))
    unpack(JOB, store, context)
    status = (root / "out" / "tool").stat()
    assert status.st_mode & 0o7111 == 0
    assert status.st_uid != 12345


@pytest.mark.parametrize("content", [make_tar(*FILES.items()), make_zip(*FILES.items())], ids=["tar", "zip"])
def test_progress_is_in_bytes_of_the_archive(store: Storage, root: Path, content: bytes) -> None:
    """Progress never exceeds the archive's length, however long the content is."""
    (root / "in").write_bytes(content)
    seen: list[tuple[int, int | None]] = []
    unpack(JOB, store, Context(report=lambda *done: seen.append(done)))
    assert 0 < (seen[-1][0]) <= len(content)
    assert {total for _, total in seen} == {len(content)}
