"""Tars as real programs write them are read, or refused by their format and not as damaged."""

import gzip
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from archive_makers import make_tar, run_program

from millpond.tasks.errors import TooLarge

Unpacked = Callable[..., dict[str, bytes | None]]
Refusal = Callable[..., str]
zstd = zstandard.ZstdCompressor().compress


def skippable(content: bytes, number: int = 0) -> bytes:
    """Return a frame that decoders of zstd skip."""
    return struct.pack("<II", 0x184D2A50 + number, len(content)) + content


@pytest.mark.parametrize(
    "pack",
    [
        lambda content: skippable(b"first") + zstd(content),
        lambda content: skippable(b"") + skippable(bytes(100_000), 15) + zstd(content),
        lambda content: zstd(content) + skippable(b"last"),
        lambda content: b"".join(
            skippable(struct.pack("<I", len(frame)), 0) + frame
            for frame in (zstd(content[at : at + 700]) for at in range(0, len(content), 700))
        ),
        lambda content: zstd(content[:1_000]) + skippable(bytes(3)) + zstd(b"") + zstd(content[1_000:]),
    ],
    ids=["first", "two first", "last", "as pzstd", "between"],
)
def test_frames_of_zstd_that_are_skipped(unpacked: Unpacked, pack: Callable[[bytes], bytes]) -> None:
    """Skippable frames are read over, wherever they are. pzstd writes one before each frame."""
    assert unpacked(pack(make_tar(("a", b"hello" * 1_000)))) == {"a": b"hello" * 1_000}


@pytest.mark.parametrize("cut", [4, 7, 9, 50, 104, 112])
def test_a_skipped_frame_that_is_cut_is_noticed(refusal: Refusal, cut: int) -> None:
    """A file that ends within a skippable frame is truncated."""
    assert "ends too early" in refusal((skippable(bytes(100)) + zstd(make_tar(("a", b"x"))))[:cut])


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_streams_one_after_the_other_are_one(unpacked: Unpacked, tmp_path: Path, packer: str) -> None:
    """Streams that real programs wrote, and that were concatenated, are read as one."""
    content = make_tar(("a", os.urandom(9_000)), ("b", b"x"))
    packed = b"".join(
        run_program(packer, "-c", folder=tmp_path, given=content[at : at + 4_000])
        for at in range(0, len(content), 4_000)
    )
    assert unpacked(packed)["b"] == b"x"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_archives_one_after_the_other_are_one(
    unpacked: Unpacked, refusal: Refusal, pack: Callable[[bytes], bytes]
) -> None:
    """The entries after the first end mark are read. They were left out without an error."""
    one, two = make_tar(("a", b"1")), make_tar(("b", b"2"), ("c/d", b"3"))
    assert unpacked(pack(one) + pack(two)) == {"a": b"1", "b": b"2", "c/d": b"3"}
    assert "entry 2 (a) comes twice" in refusal(pack(one) + pack(one))
    assert "it was cut off" in refusal(pack(one + two[:512]))


SPARSE = [
    ("--format=gnu",),
    ("--format=posix", "--sparse-version=0.0"),
    ("--format=posix", "--sparse-version=0.1"),
]


@pytest.mark.parametrize("form", [*SPARSE, ("--format=posix", "--sparse-version=1.0")], ids=" ".join)
def test_sparse_files_are_read(unpacked: Unpacked, tmp_path: Path, form: tuple[str, ...]) -> None:
    """All four formats of GNU tar for sparse files are read, with more holes than one header can list."""
    name = "ein langer Name mit ü " + "x" * 120
    with (tmp_path / name).open("wb") as file:
        for at in range(40):
            file.seek(at * 200_000)
            file.write(b"data %d" % at)
        file.truncate(40 * 200_000)
    (tmp_path / "behind").write_bytes(b"x" * 700)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(500_000)
    content = run_program("tar", "--sparse", *form, "-cf", "-", name, "behind", "hole", folder=tmp_path)
    assert len(content) < 1_000_000
    found = unpacked(content)
    assert found == {each: (tmp_path / each).read_bytes() for each in (name, "behind", "hole")}


def test_a_sparse_bomb_is_one(refusal: Refusal, tmp_path: Path) -> None:
    """The holes of a sparse file count as content."""
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10**12)
    content = run_program("tar", "--sparse", "-cf", "-", "hole", folder=tmp_path)
    assert "bomb" in refusal(content, error=TooLarge, max_unpacked_bytes=50_000_000)


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes(unpacked: Unpacked, tmp_path: Path, form: str) -> None:
    """Every format of GNU tar is read: with a label, with the longest names, with an empty folder."""
    short = form in ("v7", "ustar")
    name = "d/" + ("n" * 90 if short else "ü" * 120)
    (tmp_path / "d").mkdir()
    (tmp_path / name).write_bytes(b"content")
    (tmp_path / "empty").mkdir()
    label = [] if form in ("v7", "ustar") else ["--label=My backup"]
    content = run_program("tar", f"--format={form}", *label, "-cf", "-", "d", "empty", folder=tmp_path)
    assert unpacked(content) == {name: b"content", "empty": None}


def test_an_incremental_backup_is_read(unpacked: Unpacked, tmp_path: Path) -> None:
    """A folder in an incremental backup has a list of names as its content, which is skipped."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"content")
    content = run_program("tar", "--listed-incremental=snapshot", "-cf", "-", "d", folder=tmp_path)
    assert unpacked(content) == {"d/a": b"content"}


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"LZIP\1", "lzip"),
        (b"\x1f\x9d\x90", "compress"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
    ],
)
def test_what_is_not_unpacked_is_called_by_its_name(refusal: Refusal, head: bytes, what: str) -> None:
    """The error for an archive of another format names the format, and does not call it damaged."""
    message = refusal(head + bytes(1_000))
    assert f"it looks like {what}" in message
    assert "damaged" not in message


def test_a_name_that_is_no_utf8_in_a_tar(unpacked: Unpacked, refusal: Refusal) -> None:
    """The error names the option with which the archive can be unpacked."""
    content = make_tar(("Übung", b"x"), form=tarfile.GNU_FORMAT, encoding="latin-1")
    assert "--encoding" in refusal(content)
    assert unpacked(content, encoding="latin-1") == {"Übung": b"x"}


def test_a_name_that_decodes_to_half_a_character_is_refused(refusal: Refusal) -> None:
    """UTF-7 can encode a surrogate, which no file name has. It ended the task with an error of Python."""
    message = refusal(make_tar(("+2AA-", b"x")), encoding="utf-7")
    assert "entry 1 (+2AA-) has a name that is not utf-7" in message


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("behind", [b"a signature, or whatever", bytes(3_000), bytes(70_000) + b"x", b"\x1f"])
def test_what_lies_behind_a_whole_stream_is_no_damage(
    unpacked: Unpacked, tmp_path: Path, packer: str, behind: bytes
) -> None:
    """Other data after a complete stream is ignored, as other programs do."""
    packed = run_program(packer, "-c", folder=tmp_path, given=make_tar(("a", b"hello")))
    assert unpacked(packed + behind) == {"a": b"hello"}


def test_a_second_stream_that_is_damaged_is_noticed(refusal: Refusal) -> None:
    """Data that begins as another stream must be a whole stream."""
    content = make_tar(("a", os.urandom(9_000)), ("b", b"x"))
    packed = gzip.compress(content[:4_000]) + gzip.compress(content[4_000:])
    assert "is damaged" in refusal(packed[:-300] + b"\xff" * 100 + packed[-200:])
    assert "cut off" in refusal(packed[:-300])
    assert "cut off" in refusal(gzip.compress(content[:4_000]) + b"no stream at all")


def test_access_rights_of_solaris_are_left_out(unpacked: Unpacked) -> None:
    """The tar of Solaris has access rights as an entry of its own, which is skipped."""
    rights = tarfile.TarInfo("rights")
    rights.type = b"A"
    content = make_tar((rights, b"user::rw-" * 100), ("a", b"hello"))
    assert unpacked(content) == {"a": b"hello"}
