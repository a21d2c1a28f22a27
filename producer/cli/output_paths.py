"""Name what an operation writes: below --out, as the input lies below the folder that was named."""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from millpond.tasks.files.contract import file_url
from millpond.tasks.files.endings import ARCHIVES, ending_of

#: Makes an output's name of an input's: "a.csv" -> "a.parquet".
Naming = Callable[[str], str]


class Targets:
    """Give each input a target, and never two the same one.

    What was given is remembered by a hash of 8 bytes: about 70 bytes of memory an input.
    """

    def __init__(self, out: str, naming: Naming) -> None:
        self._out = out
        self._naming = naming
        self._taken: set[int] = set()

    def target(self, below: PurePosixPath) -> str:
        """Return the storage URL or path to write.

        Raises `ValueError` when another input writes it already.
        """
        path = below.with_name(self._naming(below.name))
        mark = int.from_bytes(blake2b(str(path).encode(errors="surrogateescape"), digest_size=8).digest())
        if mark in self._taken:
            raise ValueError(f"another input writes {path} already: run this one alone, with another --out")
        self._taken.add(mark)
        if "://" in self._out:
            return f"{self._out.rstrip('/')}/{path}"
        return file_url(Path(self._out) / path)


def with_extension(extension: str) -> Naming:
    """Name an output as its input, with another extension."""
    return lambda name: PurePosixPath(name).stem + extension


def with_added(extension: str) -> Naming:
    """Name an output as its input, with one more extension."""
    return lambda name: name + extension


def unchanged(name: str) -> str:
    """Name an output as its input."""
    return name


def folder_of_archive(name: str) -> str:
    """Name the folder that an archive is unpacked into: the archive without its extensions."""
    ending = ending_of(name, ARCHIVES)
    if ending and len(name) > len(ending):
        return name[: -len(ending)]
    return PurePosixPath(name).stem + ".unpacked" if "." not in name else PurePosixPath(name).stem
