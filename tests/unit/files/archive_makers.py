"""Make archives, good and bad ones."""

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

#: The entries of a good archive; None is a folder.
FILES: dict[str, bytes | None] = {
    "a.txt": b"hello",
    "deep/er/größe €.txt": b"0123456789" * 30_000,
    "empty": b"",
    "folder": None,
    "n" * 200 + "/" + "m" * 120: b"long names",
}


def make_tar(
    *entries: tuple[Any, bytes | None], form: int = tarfile.PAX_FORMAT, encoding: str = "utf-8"
) -> bytes:
    """Return a tar of entries: a name or a `TarInfo`, and content, None for a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding=encoding) as archive:
        for named, content in entries:
            member = named if isinstance(named, tarfile.TarInfo) else tarfile.TarInfo(named)
            if content is None and member is not named:
                member.type = tarfile.DIRTYPE
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


def make_zip(*entries: tuple[Any, bytes | None], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of entries: a name or a `ZipInfo`, and content, None for a folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for named, content in entries:
            archive.writestr(f"{named}/" if content is None else named, content or b"")
    return buffer.getvalue()


def make_overlapping_zip(copies: int, kernel: bytes) -> bytes:
    """Return a zip whose directory lists one compressed file many times, under names of one length."""
    one = make_zip(("0000", kernel))
    directory_at = one.index(b"PK\x01\x02")
    end_at = one.index(b"PK\x05\x06")
    record = one[directory_at:end_at]
    records = b"".join(record.replace(b"0000", b"%04d" % at) for at in range(copies))
    end = bytearray(one[end_at:])
    end[8:12] = copies.to_bytes(2, "little") * 2
    end[12:16] = len(records).to_bytes(4, "little")
    return one[:directory_at] + records + bytes(end)


def make_quoting_zip(kernel: bytes) -> bytes:
    """Return a zip of two entries, of which the first has all of the second as its own content."""
    inner = make_zip(("b", kernel), method=zipfile.ZIP_STORED)
    inner_local = inner[: inner.index(b"PK\x01\x02")]
    outer = make_zip(("a", inner_local), method=zipfile.ZIP_STORED)
    directory_at, end_at = outer.index(b"PK\x01\x02", len(inner_local)), outer.rindex(b"PK\x05\x06")
    record = bytearray(inner[inner.index(b"PK\x01\x02") : inner.rindex(b"PK\x05\x06")])
    record[42:46] = outer.index(inner_local).to_bytes(4, "little")
    records = outer[directory_at:end_at] + bytes(record)
    end = bytearray(outer[end_at:])
    end[8:12] = (2).to_bytes(2, "little") * 2
    end[12:16] = len(records).to_bytes(4, "little")
    return outer[:directory_at] + records + bytes(end)


def run_program(program: str, *arguments: str, folder: Path, given: bytes = b"") -> bytes:
    """Run a program in a folder, and return its output. Skip the test if it is not installed."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([program, *arguments], cwd=folder, input=given, capture_output=True, check=True)
    return done.stdout
