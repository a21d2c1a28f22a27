"""Finding files as they are walked, and naming the written files."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from millpond.producer.cli.inputs import InputFile, Inputs, UnreadableInput, read_paths
from millpond.producer.cli.output_paths import OutputPaths, output_name
from millpond.tasks.errors import BadInput


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.jpg", "B.JPG", "note.txt", "deep/er/c.jpg", "out/a.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def below(inputs: Inputs) -> list[str]:
    return sorted(str(found.relative_path) for found in inputs if isinstance(found, InputFile))


def test_a_folder_is_walked_for_the_names_that_fit(tree: Path) -> None:
    """A folder gives the files whose names fit, in any case, but not those of the folder written to."""
    inputs = Inputs([str(tree)], patterns=("*.jpg",), skipped_folder=tree / "out")
    assert below(inputs) == ["B.JPG", "a.jpg", "deep/er/c.jpg"]
    assert inputs.count_items() == 3


@pytest.mark.parametrize("out", ["deep/../out", "link"])
def test_the_folder_written_to_is_left_out_by_any_path(tree: Path, out: str) -> None:
    """Outputs would else be inputs again, without end."""
    (tree / "link").symlink_to("out")
    inputs = Inputs([str(tree)], patterns=("*.jpg",), skipped_folder=tree / out)
    assert below(inputs) == ["B.JPG", "a.jpg", "deep/er/c.jpg"]


def test_a_file_that_is_named_is_taken_whatever_its_name(tree: Path) -> None:
    """Patterns hold for folders; a file that a person names is meant."""
    assert below(Inputs([str(tree / "note.txt")], patterns=("*.jpg",))) == ["note.txt"]


def test_a_missing_argument_is_refused_before_anything_starts(tree: Path) -> None:
    """An argument that names nothing, such as a glob that matched nothing, is refused at once."""
    with pytest.raises(BadInput, match=r"\*\.jpg: there is no such file"):
        Inputs([str(tree / "*.jpg")]).check_arguments()


def test_a_folder_that_cannot_be_read_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be opened is an input left out, not the end of the walk."""
    scandir = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("millpond.producer.cli.inputs.os.scandir", refusing)
    found = list(Inputs([str(tree)], patterns=("*.jpg",)))
    assert [each.reason for each in found if isinstance(each, UnreadableInput)] == ["Permission denied"]
    assert len(found) == 4


class BrokenFolder:
    """The entries of a folder that cannot be read to its end, as on a network file system that went away."""

    def __init__(self, path: str, entries: Iterable["os.DirEntry[str]"]) -> None:
        self.path, self.entries = path, entries

    def __enter__(self) -> Iterator["os.DirEntry[str]"]:
        yield from self.entries
        raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)

    def __exit__(self, *_: object) -> None: ...


def test_a_folder_that_cannot_be_read_to_its_end_is_named(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named behind the files that it gave, the folders beside it are walked, and it is counted."""
    scandir = os.scandir

    def breaking(path: str) -> Any:
        return BrokenFolder(path, scandir(path)) if path.endswith("er") else scandir(path)

    monkeypatch.setattr("millpond.producer.cli.inputs.os.scandir", breaking)
    inputs = Inputs([str(tree)])
    assert UnreadableInput(str(tree / "deep" / "er"), os.strerror(errno.EIO)) in list(inputs)
    assert below(inputs) == ["B.JPG", "a.jpg", "deep/er/c.jpg", "note.txt", "out/a.jpg"]
    assert inputs.count_items() == 6


def test_a_link_to_itself_is_named(tree: Path) -> None:
    """An entry that leads nowhere but to itself stands for itself: the others are found and counted."""
    (tree / "loop.jpg").symlink_to("loop.jpg")
    inputs = Inputs([str(tree)], patterns=("*.jpg",))
    assert [each.reason for each in inputs if isinstance(each, UnreadableInput)] == [os.strerror(errno.ELOOP)]
    assert inputs.count_items() == 5


@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_paths_come_from_stdin_by_line_or_by_nul(separator: bytes) -> None:
    """Paths are separated by newlines, or by NUL if there is one; a name that is no UTF-8 comes through."""
    there, here = os.pipe()
    os.write(here, separator.join([b"a b.txt", b"caf\xe9.txt", b"last"]))
    os.close(here)
    with os.fdopen(there):
        assert [os.fsencode(path) for path in read_paths(there)] == [b"a b.txt", b"caf\xe9.txt", b"last"]


def test_roots_are_the_folders_of_what_was_named(tree: Path) -> None:
    """Workers of a one-off command may touch the folders named and --out, each once, and no parent."""
    inputs = Inputs([str(tree / "deep"), str(tree / "deep/er/c.jpg"), "s3://bucket/in/x.jpg"])
    assert inputs.root_folders(str(tree / "out"), "s3://other/out", "s3://bucket/in/deep") == sorted(
        ["s3://bucket/in", "s3://other/out", str(tree / "deep"), str(tree / "out")]
    )


@pytest.mark.parametrize(
    ("kind", "fields", "name", "written"),
    [
        ("files.thumbnail", {}, "a.PNG", "a.PNG"),
        ("files.thumbnail", {}, "a.heic", "a.jpg"),
        ("files.convert", {"format": "webp"}, "a.jpg", "a.webp"),
        ("files.convert", {"format": "jpeg"}, "a.jpeg", "a.jpeg"),
        ("files.convert", {"format": "jpeg"}, "a.png", "a.jpg"),
        ("files.parquet", {}, "a.b.csv", "a.b.parquet"),
        ("files.pdf_text", {}, "a.pdf", "a.txt"),
        ("files.compress", {}, "a.log", "a.log.zst"),
        ("files.unpack", {}, "a.tar.gz", "a"),
        ("files.unpack", {}, "archive", "archive.unpacked"),
    ],
)
def test_outputs_are_named_after_their_inputs(
    kind: str, fields: dict[str, str], name: str, written: str
) -> None:
    """Each operation names its output after its input."""
    assert output_name(kind, name, **fields) == written


def test_two_inputs_never_write_one_target(tmp_path: Path) -> None:
    """A second input with the same target is refused, for it would overwrite the first one's result."""
    paths = OutputPaths(str(tmp_path), str)
    assert paths.output_url(PurePosixPath("x/a.jpg")) == f"{tmp_path}/x/a.jpg"
    assert paths.output_url(PurePosixPath("y/a.jpg")) == f"{tmp_path}/y/a.jpg"
    with pytest.raises(ValueError, match="another input"):
        paths.output_url(PurePosixPath("x/a.jpg"))


def test_a_target_in_a_storage_keeps_its_scheme() -> None:
    """--out may be a storage URL."""
    assert (
        OutputPaths("s3://bucket/out/", str).output_url(PurePosixPath("x/a.jpg")) == "s3://bucket/out/x/a.jpg"
    )
