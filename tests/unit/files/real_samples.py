"""Download samples from the source packages of other projects, for slow tests. None is committed."""

import binascii
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_SECONDS = 600


def download_from_pypi(project: str, folder: Path) -> Path:
    """Return the unpacked source distribution of a project. Skip the test if it cannot be downloaded."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    _run([*pip, "--dest", str(folder), project], folder, f"{project} from PyPI")
    return _unpacked(folder, f"{project}-*.tar.gz")


def download_from_debian(package: str, folder: Path) -> Path:
    """Return the unpacked sources of a Debian package. Skip the test if they cannot be downloaded."""
    if not shutil.which("apt-get"):
        pytest.skip("this is no Debian")
    sources = folder / "sources.sources"
    found = [*Path("/etc/apt/sources.list.d").glob("*.sources")]
    text = "\n\n".join(path.read_text() for path in found if "debian" in path.name)
    sources.write_text(re.sub(r"^Types: deb$", "Types: deb-src", text, flags=re.MULTILINE))
    for made in ("lists/partial", "cache/archives/partial"):
        (folder / made).mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
    }
    apt = ["apt-get", "-q", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    _run([*apt, "update"], folder, "Debian's sources")
    _run([*apt, "source", "--download-only", package], folder, f"{package} from Debian")
    return _unpacked(folder, f"{package}_*.orig.tar.*")


def uudecode(path: Path) -> bytes:
    """Return the content of a uuencoded file."""
    content, is_begun = bytearray(), False
    for line in path.read_bytes().splitlines():
        if line == b"end":
            break
        if is_begun and line:
            # Some encoders end a line with a character too many.
            length = (((line[0] - 32) & 63) * 4 + 5) // 3
            content += binascii.a2b_uu(line[: length + 1].ljust(length + 1))
        is_begun = is_begun or line.startswith(b"begin ")
    return bytes(content)


def list_files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, in order."""
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _run(command: list[str], folder: Path, what: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no {what} here: {error}")


def _unpacked(folder: Path, pattern: str) -> Path:
    (archive,) = (path for path in folder.glob(pattern) if path.suffix != ".asc")
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked
