"""The names of outputs, and their paths: below --out, at the same relative path as the input."""

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from millpond.producer.cli.inputs import InputFile, Inputs
from millpond.tasks.files.contract import file_url
from millpond.tasks.files.endings import ARCHIVE_ENDINGS, IMAGE_FORMATS, find_ending


class OutputPaths:
    """The paths of outputs below a folder or storage URL, a different one for each input.

    `name_output` returns the name of an output for the name of its input.
    Each path is kept as a hash of 8 bytes, which takes about 70 bytes of memory.
    """

    def __init__(self, out: str, name_output: Callable[[str], str]) -> None:
        self._out = out
        self._name_output = name_output
        self._path_hashes: set[int] = set()

    def output_url(self, relative_path: PurePosixPath) -> str:
        """Return the storage URL of the output for an input's relative path.

        Raises `ValueError` if an earlier input has the same output.
        """
        path = relative_path.with_name(self._name_output(relative_path.name))
        hash = int.from_bytes(blake2b(str(path).encode(errors="surrogateescape"), digest_size=8).digest())
        if hash in self._path_hashes:
            raise ValueError(f"another input writes {path} already: run this one alone, with another --out")
        self._path_hashes.add(hash)
        if "://" in self._out:
            return f"{self._out.rstrip('/')}/{path}"
        return file_url(Path(self._out) / path)

    def refuse_to_replace(self, file: InputFile, inputs: Inputs) -> None:
        """Raise `ValueError` if the output of an input would replace a file in a folder of inputs.

        Of a storage, only the inputs that arguments name are known. An output that is its own input is not
        refused here: its task refuses it.
        """
        name = self._name_output(file.relative_path.name)
        if "://" in self._out:
            target = f"{self._out.rstrip('/')}/{file.relative_path.with_name(name)}"
            is_kept = target in inputs.distinct_arguments and target != file.path
        else:
            target = os.path.join(self._out, file.relative_path.with_name(name))  # noqa: PTH118
            is_kept = os.path.lexists(target) and _is_beside_inputs(target, file.path, inputs)
        if is_kept:
            raise ValueError(f"{target} is there already, in a folder of inputs: choose another --out")


def output_name(kind: str, name: str, format: str | None = None) -> str:
    """Return the name of an operation's output for the name of its input: "a.csv" -> "a.parquet".

    An image keeps an extension of `format`; any other is replaced by it. Without a format, an extension of
    any format that can be written is kept, and any other becomes .jpg.
    """
    path = PurePosixPath(name)
    match kind:
        case "files.parquet":
            return path.stem + ".parquet"
        case "files.pdf_text":
            return path.stem + ".txt"
        case "files.compress":
            return name + ".zst"
        case "files.unpack":
            return _archive_folder(name)
    image_format = IMAGE_FORMATS.get(path.suffix.lower())
    if image_format is not None and format in (None, image_format):
        return name
    return path.stem + "." + (format or "jpg").replace("jpeg", "jpg")


def _archive_folder(name: str) -> str:
    """Return the name of the folder for an archive's content: the archive's name without its extensions.

    An archive whose name has no extension is unpacked into `NAME.unpacked`.
    """
    ending = find_ending(name, ARCHIVE_ENDINGS)
    if ending and len(name) > len(ending):
        return name[: -len(ending)]
    return PurePosixPath(name).stem + ".unpacked" if "." not in name else PurePosixPath(name).stem


def _is_beside_inputs(target: str, source: str, inputs: Inputs) -> bool:
    """True if an output is another file than its source, in that one's folder or in one of the arguments."""
    folder, name = os.path.split(target)
    folder = os.path.realpath(folder)
    source_folder = None if "://" in source else os.path.realpath(os.path.dirname(source))  # noqa: PTH120
    if folder == source_folder:
        return name != os.path.basename(source)  # noqa: PTH119
    return folder in inputs.argument_folders
