"""The paths of outputs: below --out, at the same relative path as the input."""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from millpond.tasks.files.contract import file_url
from millpond.tasks.files.endings import ARCHIVES, known_ending

#: Returns the name of an output from the name of its input: "a.csv" -> "a.parquet".
Naming = Callable[[str], str]


class Targets:
    """The targets of inputs, a different one for each.

    A target is remembered as a hash of 8 bytes, which takes about 70 bytes of memory.
    """

    def __init__(self, out: str, naming: Naming) -> None:
        self._out = out
        self._naming = naming
        self._taken: set[int] = set()

    def target_url(self, below: PurePosixPath) -> str:
        """Return the storage URL of an output. Raises `ValueError` if another input has it already."""
        path = below.with_name(self._naming(below.name))
        mark = int.from_bytes(blake2b(str(path).encode(errors="surrogateescape"), digest_size=8).digest())
        if mark in self._taken:
            raise ValueError(f"another input writes {path} already: run this one alone, with another --out")
        self._taken.add(mark)
        if "://" in self._out:
            return f"{self._out.rstrip('/')}/{path}"
        return file_url(Path(self._out) / path)


def with_extension(extension: str) -> Naming:
    """Return a naming that replaces the extension."""
    return lambda name: PurePosixPath(name).stem + extension


def with_added_extension(extension: str) -> Naming:
    """Return a naming that adds an extension."""
    return lambda name: name + extension


def same_name(name: str) -> str:
    """Return the name of the input."""
    return name


def folder_of_archive(name: str) -> str:
    """Return the name of the folder for an archive's content: the archive's name without its extensions."""
    ending = known_ending(name, ARCHIVES)
    if ending and len(name) > len(ending):
        return name[: -len(ending)]
    return PurePosixPath(name).stem + ".unpacked" if "." not in name else PurePosixPath(name).stem
