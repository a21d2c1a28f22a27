"""Archives as real programs write them are read, or refused for what they are and not as damaged."""

import gzip
import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from packed import tar, zipped

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, TooLarge
from millpond.tasks.files.archives import unpack
from millpond.tasks.files.contract import Unpack
from millpond.tasks.files.storage import Storage
from millpond.tasks.settings import Files

Unpacked = Callable[..., dict[str, bytes | None]]
Refusal = Callable[..., str]
zstd = zstandard.ZstdCompressor().compress


@pytest.fixture
def unpacked(store: Storage, root: Path, context: Context) -> Unpacked:
    """Return a function that unpacks an archive; gives its files with their content, and empty folders."""

    def run(content: bytes, **options: str) -> dict[str, bytes | None]:
        (root / "in").write_bytes(content)
        shutil.rmtree(root / "out", ignore_errors=True)
        result = unpack(Unpack(source="in", target="out", **options), store, context)
        found = {
            str(path.relative_to(root / "out")): path.read_bytes() if path.is_file() else None
            for path in (root / "out").rglob("*")
            if path.is_file() or not any(path.iterdir())
        }
        assert result.files == sum(content is not None for content in found.values())
        return found

    return run


@pytest.fixture
def refusal(store: Storage, root: Path, context: Context) -> Refusal:
    """Return a function that unpacks what cannot be, and gives the message; nothing may be left."""

    def run(content: bytes, **options: str) -> str:
        (root / "in").write_bytes(content)
        shutil.rmtree(root / "out", ignore_errors=True)
        with pytest.raises(BadInput) as caught:
            unpack(Unpack(source="in", target="out", **options), store, context)
        assert [path.name for path in root.iterdir()] == ["in"]
        return str(caught.value)

    return run


def run(program: str, *arguments: str, folder: Path, given: bytes = b"") -> bytes:
    """Run a program of the system in a folder, and return what it writes; skip where it is not installed."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([program, *arguments], cwd=folder, input=given, capture_output=True, check=True)
    return done.stdout


# --- zip


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK, 0])
def test_the_content_of_an_entry_decides_and_not_its_label(unpacked: Unpacked, kind: int) -> None:
    """What was read from a pipe is labelled as a pipe, and is a file."""
    entry = zipfile.ZipInfo("-")
    entry.create_system, entry.external_attr = 3, (kind | 0o600) << 16
    assert unpacked(zipped((entry, b"hello\n"))) == {"-": b"hello\n"}


def test_a_mode_from_another_system_is_none(unpacked: Unpacked) -> None:
    """The upper bits of an entry from DOS are no mode, even where they look like a link's."""
    entry = zipfile.ZipInfo("a")
    entry.create_system, entry.external_attr = 0, 0o120777 << 16
    assert unpacked(zipped((entry, b"x"))) == {"a": b"x"}


def test_zip_from_a_pipe_and_into_one(unpacked: Unpacked, tmp_path: Path) -> None:
    """`zip -` has neither names nor lengths where it needs them, only behind the content."""
    assert unpacked(run("zip", "-q", "-", "-", folder=tmp_path, given=b"hello\n")) == {"-": b"hello\n"}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_bytes(b"x" * 100_000)
    content = run("zip", "-q", "-r", "-", "a", folder=tmp_path)
    assert unpacked(content) == {"a/b.txt": b"x" * 100_000}


class _Pipe(io.RawIOBase):
    """A file that can be written, and neither read nor wound back."""

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
    """Data descriptors, with lengths of four and of eight bytes, in each method that Python writes."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:  # type: ignore[type-var]
        for name in ("a", "b/c"):
            with archive.open(name, "w", force_zip64=is_large) as file:
                file.write(b"hello " * 9_000)
    assert unpacked(pipe.content) == {"a": b"hello " * 9_000, "b/c": b"hello " * 9_000}


@pytest.mark.parametrize("method", ["LZMA", "BZip2", "Deflate", "Copy"])
def test_what_7z_writes(unpacked: Unpacked, tmp_path: Path, method: str) -> None:
    """7-Zip's zips, where LZMA has no mark at its end."""
    (tmp_path / "a.txt").write_bytes(os.urandom(1_000) + b"x" * 300_000)
    run("7z", "a", "-tzip", f"-mm={method}", "out.zip", "a.txt", folder=tmp_path)
    content = (tmp_path / "out.zip").read_bytes()
    assert unpacked(content) == {"a.txt": (tmp_path / "a.txt").read_bytes()}


def test_an_lzma_entry_that_is_damaged_is_refused(refusal: Refusal) -> None:
    """Neither its properties nor its content are trusted."""
    content = zipped(("a", b"hello " * 9_000), method=zipfile.ZIP_LZMA)
    begins = 30 + 1
    for at, said in ((begins + 4, "properties"), (begins + 8, "dictionary of"), (begins + 30, "damaged")):
        assert said in refusal(content[:at] + b"\xff" + content[at + 1 :])


@pytest.mark.parametrize("is_adjusted", [False, True])
@pytest.mark.parametrize(
    "stub", [b"#!/bin/sh\nexit 1\n", b"MZ" + bytes(70_000), b"\x7fELF" + bytes(5_000), b"PK00"]
)
def test_bytes_may_lie_before_the_first_entry(unpacked: Unpacked, stub: bytes, is_adjusted: bool) -> None:
    """A program that unpacks itself, with offsets from its own beginning or from that of the file."""
    plain = zipped(("a", b"hello"), ("b/c", b"x" * 5_000))
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
    """A comment, padding, or what a program appended."""
    assert unpacked(zipped(("a", b"hello")) + behind) == {"a": b"hello"}


@pytest.mark.parametrize(
    ("system", "attributes"), [(3, 0o040755 << 16), (0, 0x10), (3, 0o040755 << 16 | 0x10)]
)
def test_a_folder_may_have_no_slash(unpacked: Unpacked, system: int, attributes: int) -> None:
    """Its label says what it is, for it has no content that could."""
    folder = zipfile.ZipInfo("dir")
    folder.create_system, folder.external_attr = system, attributes
    assert unpacked(zipped((folder, b""), ("dir/a.txt", b"x"))) == {"dir/a.txt": b"x"}
    assert unpacked(zipped((folder, b""), ("b", b"x"))) == {"dir": None, "b": b"x"}
    assert unpacked(zipped((folder, b"content"))) == {"dir": b"content"}


def test_a_folder_with_content_is_refused(refusal: Refusal) -> None:
    """Its content would be missed later."""
    assert "is a folder with content of its own" in refusal(zipped(("dir/", b"content")))


def _renamed(name: bytes, flags: int = 0) -> bytes:
    content = zipped(("?" * len(name), b"x")).replace(b"?" * len(name), name)
    at = content.index(b"PK\x01\x02") + 8
    return (
        content[:6]
        + flags.to_bytes(2, "little")
        + content[8:at]
        + flags.to_bytes(2, "little")
        + content[at + 2 :]
    )


def test_names_in_every_encoding(unpacked: Unpacked, refusal: Refusal) -> None:
    """UTF-8 with its flag, without it, in Info-ZIP's own field; and others where the command says which."""
    assert unpacked(_renamed("Übung".encode(), flags=0x800)) == {"Übung": b"x"}
    assert unpacked(_renamed("Übung".encode())) == {"Übung": b"x"}
    raw = "Übung".encode("cp437")
    message = refusal(_renamed(raw))
    assert "has a name that is not UTF-8: give the encoding of its names" in message
    assert "--encoding cp437" in message
    assert unpacked(_renamed(raw), encoding="cp437") == {"Übung": b"x"}
    assert unpacked(_renamed("テスト".encode("cp932")), encoding="cp932") == {"テスト": b"x"}
    entry = zipfile.ZipInfo("a")
    field = struct.pack("<BL", 1, zlib.crc32(b"a")) + "Übung".encode()
    entry.extra = struct.pack("<HH", 0x7075, len(field)) + field
    assert unpacked(zipped((entry, b"x"))) == {"Übung": b"x"}
    assert "no text encoding is called 'klingon'" in refusal(_renamed(raw), encoding="klingon")


# --- tar and its compressions


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
    """pzstd writes one before each frame, with its length."""
    assert unpacked(pack(tar(("a", b"hello" * 1_000)))) == {"a": b"hello" * 1_000}


@pytest.mark.parametrize("cut", [4, 7, 9, 50, 104, 112])
def test_a_skipped_frame_that_is_cut_is_noticed(refusal: Refusal, cut: int) -> None:
    """The file ends where the frame's length says that more comes."""
    assert "ends too early" in refusal((skippable(bytes(100)) + zstd(tar(("a", b"x"))))[:cut])


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_streams_one_after_the_other_are_one(unpacked: Unpacked, tmp_path: Path, packer: str) -> None:
    """`cat`, and programs that compress on several cores, join streams."""
    content = tar(("a", os.urandom(9_000)), ("b", b"x"))
    packed = b"".join(
        run(packer, "-c", folder=tmp_path, given=content[at : at + 4_000])
        for at in range(0, len(content), 4_000)
    )
    assert unpacked(packed)["b"] == b"x"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_archives_one_after_the_other_are_one(
    unpacked: Unpacked, refusal: Refusal, pack: Callable[[bytes], bytes]
) -> None:
    """What stood behind the first end mark was left out without a word."""
    one, two = tar(("a", b"1")), tar(("b", b"2"), ("c/d", b"3"))
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
    """In the four ways in which GNU tar writes them, with more holes than one header lists."""
    name = "ein langer Name mit ü " + "x" * 120
    with (tmp_path / name).open("wb") as file:
        for at in range(40):
            file.seek(at * 200_000)
            file.write(b"data %d" % at)
        file.truncate(40 * 200_000)
    (tmp_path / "behind").write_bytes(b"x" * 700)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(500_000)
    content = run("tar", "--sparse", *form, "-cf", "-", name, "behind", "hole", folder=tmp_path)
    assert len(content) < 1_000_000
    found = unpacked(content)
    assert found == {each: (tmp_path / each).read_bytes() for each in (name, "behind", "hole")}


def test_a_sparse_bomb_is_one(root: Path, context: Context, tmp_path: Path) -> None:
    """A hole counts as what it makes."""
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10**12)
    (root / "in").write_bytes(run("tar", "--sparse", "-cf", "-", "hole", folder=tmp_path))
    tight = Storage(roots=(str(root),), limits=Files(max_unpacked_bytes=50_000_000))
    with pytest.raises(TooLarge, match="bomb"):
        unpack(Unpack(source="in", target="out"), tight, context)
    assert [path.name for path in root.iterdir()] == ["in"]


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes(unpacked: Unpacked, tmp_path: Path, form: str) -> None:
    """Every format, with a label, names as long as each can hold, and a folder of its own."""
    short = form in ("v7", "ustar")
    name = "d/" + ("n" * 90 if short else "ü" * 120)
    (tmp_path / "d").mkdir()
    (tmp_path / name).write_bytes(b"content")
    (tmp_path / "empty").mkdir()
    label = [] if form in ("v7", "ustar") else ["--label=My backup"]
    content = run("tar", f"--format={form}", *label, "-cf", "-", "d", "empty", folder=tmp_path)
    assert unpacked(content) == {name: b"content", "empty": None}


def test_an_incremental_backup_is_read(unpacked: Unpacked, tmp_path: Path) -> None:
    """Its folders list what they held, in place of content."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"content")
    content = run("tar", "--listed-incremental=snapshot", "-cf", "-", "d", folder=tmp_path)
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
    """A sound archive of another kind is not damaged."""
    message = refusal(head + bytes(1_000))
    assert f"it looks like {what}" in message
    assert "damaged" not in message


def test_a_name_that_is_no_utf8_in_a_tar(unpacked: Unpacked, refusal: Refusal) -> None:
    """The message names the option that helps."""
    content = tar(("Übung", b"x"), form=tarfile.GNU_FORMAT, encoding="latin-1")
    assert "--encoding" in refusal(content)
    assert unpacked(content, encoding="latin-1") == {"Übung": b"x"}


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("behind", [b"a signature, or whatever", bytes(3_000), bytes(70_000) + b"x", b"\x1f"])
def test_what_lies_behind_a_whole_stream_is_no_damage(
    unpacked: Unpacked, tmp_path: Path, packer: str, behind: bytes
) -> None:
    """Programs ignore it, and the tar's own end shows that it is whole."""
    packed = run(packer, "-c", folder=tmp_path, given=tar(("a", b"hello")))
    assert unpacked(packed + behind) == {"a": b"hello"}


def test_a_second_stream_that_is_damaged_is_noticed(refusal: Refusal) -> None:
    """What begins as a stream must be one."""
    content = tar(("a", os.urandom(9_000)), ("b", b"x"))
    packed = gzip.compress(content[:4_000]) + gzip.compress(content[4_000:])
    assert "is damaged" in refusal(packed[:-300] + b"\xff" * 100 + packed[-200:])
    assert "cut off" in refusal(packed[:-300])
    assert "cut off" in refusal(gzip.compress(content[:4_000]) + b"no stream at all")


def test_access_rights_of_solaris_are_left_out(unpacked: Unpacked) -> None:
    """Its tar has them as an entry before the file that they are of."""
    rights = tarfile.TarInfo("rights")
    rights.type = b"A"
    content = tar((rights, b"user::rw-" * 100), ("a", b"hello"))
    assert unpacked(content) == {"a": b"hello"}
