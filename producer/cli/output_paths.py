"""The paths of outputs: below --out, at the same relative path as the input."""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from millpond.tasks.files.contract import file_url
from millpond.tasks.files.endings import ARCHIVE_ENDINGS, find_ending

#: Returns the name of an output from the name of its input: "a.csv" -> "a.parquet".
Naming = Callable[[str], str]


class OutputPaths:
    """The paths of outputs below a folder or storage URL, a different one for each input.

    Each path is kept as a hash of 8 bytes, which takes about 70 bytes of memory.
    """

    def __init__(self, out: str, naming: Naming) -> None:
        self._out = out
        self._naming = naming
        self._path_hashes: set[int] = set()

    def output_url(self, relative_path: PurePosixPath) -> str:
        """Return the storage URL of the output for an input's relative path.

        Raises `ValueError` if an earlier input has the same output.
        """
        path = relative_path.with_name(self._naming(relative_path.name))
        hash = int.from_bytes(blake2b(str(path).encode(errors="surrogateescape"), digest_size=8).digest())
        if hash in self._path_hashes:
            raise ValueError(f"another input writes {path} already: run this one alone, with another --out")
        self._path_hashes.add(hash)
        if "://" in self._out:
            return f"{self._out.rstrip('/')}/{path}"
        return file_url(Path(self._out) / path)


def with_extension(extension: str) -> Naming:
    """Return a naming that replaces the extension of a name."""
    return lambda name: PurePosixPath(name).stem + extension


def with_added_extension(extension: str) -> Naming:
    """Return a naming that adds an extension to a name."""
    return lambda name: name + extension


def archive_folder(name: str) -> str:
    """Return the name of the folder for an archive's content: the archive's name without its extensions.

    An archive whose name has no extension is unpacked into `NAME.unpacked`.
    """
    ending = find_ending(name, ARCHIVE_ENDINGS)
    if ending and len(name) > len(ending):
        return name[: -len(ending)]
    return PurePosixPath(name).stem + ".unpacked" if "." not in name else PurePosixPath(name).stem
