"""Damaged and hostile archives are refused with the entry at fault, and leave nothing."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import pytest
import zstandard
from archive_makers import FILES, make_overlapping_zip, make_quoting_zip, make_tar, make_zip

from millpond.tasks.errors import TooLarge

Refusal = Callable[..., str]
MEGABYTE = 1024 * 1024


@pytest.mark.parametrize("pack", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "outside the target"),
        ("a/../../evil", "outside the target"),
        ("/tmp/evil", "outside the target"),
        ("C:/evil", "outside the target"),
        ("C:\\evil", "outside the target"),
        ("..\\evil", "backslash"),
        ("a\\b", "backslash"),
        ("a\nb", "control character"),
        ("a\x1b[2Jb", "control character"),
        ("x" * 256, "too long"),
        ("/".join("x" * 200 for _ in range(30)), "too long"),
        ("a/" * 64 + "x", "deeper than 64 folders"),
    ],
)
def test_names_that_lead_out_or_astray(
    refusal: Refusal, pack: Callable[..., bytes], name: str, reason: str
) -> None:
    """No name of an entry leads outside the target, here or on another system."""
    assert reason in refusal(pack(("good", b"x"), (name, b"evil")))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"Z", "of a kind that is not known"),
    ],
)
def test_only_files_and_folders_come_out_of_a_tar(refusal: Refusal, kind: bytes, what: str) -> None:
    """A link, which a later entry could be written through, is refused; so is all else that is no file."""
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc"
    message = refusal(make_tar(("good", b"x"), (member, None), ("link/passwd", b"evil")))
    assert "entry 2 (link)" in message
    assert what in message


def test_a_link_in_a_zip_is_refused(refusal: Refusal) -> None:
    """A zip from Unix may hold a link as a file with a mode."""
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    assert "entry 2 (link) is a symbolic link" in refusal(make_zip(("good", b"x"), (link, b"/etc")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", [make_zip, make_tar])
def test_entries_that_stand_in_each_others_way(refusal: Refusal, pack: Callable[..., bytes]) -> None:
    """Of two entries with one name only one could be kept, so both are refused."""
    assert "entry 2 (a) comes twice" in refusal(pack(("a", b"1"), ("a", b"2")))
    assert "entry 2 (a/b) comes twice, or lies below a file" in refusal(pack(("a", b"1"), ("a/b", b"2")))
    assert "entry 2 (a) is a file and a folder" in refusal(pack(("a/b", b"1"), ("a", b"2")))


@pytest.mark.parametrize(
    "content",
    [
        make_zip(("a", bytes(40 * MEGABYTE))),
        make_zip(("a", bytes(40 * MEGABYTE)), method=zipfile.ZIP_BZIP2),
        gzip.compress(make_tar(("a", bytes(40 * MEGABYTE)))),
        bz2.compress(make_tar(("a", bytes(40 * MEGABYTE)))),
        lzma.compress(make_tar(("a", bytes(40 * MEGABYTE)))),
        zstandard.ZstdCompressor().compress(make_tar(("a", bytes(40 * MEGABYTE)))),
    ],
)
def test_a_ratio_that_is_too_good_is_refused(refusal: Refusal, content: bytes) -> None:
    """A decompression bomb is stopped by the ratio of the bytes written so far to the archive's length."""
    assert "over 200 times its own size" in refusal(content, error=TooLarge)


@pytest.mark.parametrize("pack", [make_zip, make_tar])
def test_the_sum_and_the_number_of_entries_are_bounded(refusal: Refusal, pack: Callable[..., bytes]) -> None:
    """Limits hold for all entries together. Sizes are counted, and not taken from a header."""
    message = refusal(pack(("a", b"x" * 600), ("b", b"x" * 600)), error=TooLarge, max_unpacked_bytes=1_000)
    assert "over 1000 bytes (max_unpacked_bytes)" in message
    many = pack(*((str(at), b"") for at in range(11)))
    assert "over 10 entries" in refusal(many, error=TooLarge, max_entries=10)
    deep = pack(("/".join("abcdefghijk"), b""))
    assert "over 10 entries" in refusal(deep, error=TooLarge, max_entries=10)


def test_a_size_that_is_a_lie_is_found(refusal: Refusal) -> None:
    """A zip whose directory has a wrong length or checksum of an entry is damaged."""
    content = make_zip(("a", b"x" * 5_000))
    directory = content.index(b"PK\x01\x02")
    for at, what in ((directory + 24, b"\x01\0\0\0"), (directory + 16, b"\0\0\0\0")):
        lie = bytearray(content)
        lie[at : at + 4] = what
        assert "entry 1 (a) is damaged: its length or checksum is wrong" in refusal(bytes(lie))


def test_entries_may_not_share_bytes(refusal: Refusal) -> None:
    """A bomb that lists one file many times, or one entry inside another, is refused before it is read."""
    assert "shares bytes with the next entry" in refusal(make_overlapping_zip(500, bytes(MEGABYTE)))
    assert "shares bytes with the next entry" in refusal(make_quoting_zip(b"x" * 5_000))


def test_headers_are_bounded(refusal: Refusal) -> None:
    """The length of an entry's headers and the number of entries in a directory are limited."""
    endless = tarfile.TarInfo("x" * 3 * MEGABYTE)
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert "headers are over" in refusal(
            gzip.compress(make_tar((endless, b""), form=form)), error=TooLarge
        )
    many = make_zip(("a", b""))
    record = many[many.index(b"PK\x01\x02") : many.index(b"PK\x05\x06")]
    end = bytearray(many[many.index(b"PK\x05\x06") :])
    end[12:16] = (len(record) * 20_000).to_bytes(4, "little")
    flood = many[: many.index(b"PK\x01\x02")] + record * 20_000 + bytes(end)
    assert "over 10000 entries" in refusal(flood, error=TooLarge, max_entries=10_000)


def test_an_encrypted_zip_says_so(refusal: Refusal) -> None:
    """The error for an encrypted entry names the entry."""
    content = bytearray(make_zip(("secret", b"x")))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert "entry 1 (secret) is encrypted" in refusal(bytes(content))


def test_a_method_that_is_not_known_says_so(refusal: Refusal) -> None:
    """The error for an unknown method of compression names it, and does not call the archive damaged."""
    content = make_zip(("a", b"x"))
    for method, name in ((9, "Deflate64"), (98, "PPMd"), (77, "method 77")):
        at = content.index(b"PK\x01\x02")
        other = content[: at + 10] + method.to_bytes(2, "little") + content[at + 12 :]
        message = refusal(other)
        assert f"method not known here ({name})" in message
        assert "damaged" not in message


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["tar", "gzip", "bzip2", "xz", "zstd"],
)
def test_a_tar_that_is_cut_off_anywhere_is_refused(refusal: Refusal, pack: Callable[[bytes], bytes]) -> None:
    """A truncated tar is never taken for a shorter one, wherever it was cut."""
    content = make_tar(*((f"file {at}", bytes([at]) * 700) for at in range(8)))
    packed = pack(content)
    blocks = range(512, len(content.rstrip(b"\0")), 512)
    cuts = blocks if pack is bytes else (len(packed) // 4, len(packed) // 2, len(packed) - 1)
    for cut in cuts:
        refusal(packed[:cut])
        if pack is not bytes:
            refusal(packed[:cut] + b"????")


_HUGE = {"dict_size": 1 << 28}


def _zstd_of_a_large_window(data: bytes) -> bytes:
    """Return a zstd frame with a large window, and without the length of its content."""
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return frame.compress(data) + frame.flush()


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, **_HUGE}]),
        _zstd_of_a_large_window,
    ],
    ids=["xz", "zstd"],
)
def test_an_archive_that_needs_too_much_memory_is_not_called_damaged(
    refusal: Refusal, pack: Callable[[bytes], bytes]
) -> None:
    """The error says that the dictionary is too large. The file itself is not damaged."""
    message = refusal(pack(make_tar(("a", b"x"))), error=TooLarge)
    assert "needs more memory to unpack" in message
    assert "damaged" not in message


def test_a_zip_that_is_cut_off_is_refused(refusal: Refusal) -> None:
    """A truncated zip has no directory, so no part of a zip is taken for the whole."""
    content = make_zip(*FILES.items())
    for cut in (10, 100, len(content) // 2, len(content) - 30, len(content) - 1):
        refusal(content[:cut])
    assert "is not where the directory says" in refusal(content[:50] + content[200:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is no archive that is unpacked here"),
        (bytes(10_240), "is no archive that is unpacked here"),
        (b"%PDF-1.7 and so on", "it looks like PDF"),
        (b"Rar!\x1a\x07\x01\x00", "it looks like RAR"),
        (gzip.compress(b"a log, not an archive" * 100, mtime=0), "holds no tar"),
        (b"\x1f\x8b\x08 broken", "is damaged"),
    ],
)
def test_what_is_no_archive_is_told_by_its_content(refusal: Refusal, content: bytes, message: str) -> None:
    """The content decides, not the file's name. The error has the format that the first bytes show."""
    assert message in refusal(content)
