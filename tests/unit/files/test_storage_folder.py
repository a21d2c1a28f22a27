"""A folder appears with everything in it, or not at all."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from millpond.tasks.errors import BadInput, OutsideRoots
from millpond.tasks.files.storage import Storage

Names = Callable[[], list[str]]


def fill(store: Storage, url: str, **files: bytes) -> None:
    with store.output_folder(url) as folder:
        folder.make_folder("empty")
        for name, data in files.items():
            with folder.create_file(f"sub/{name}") as file:
                file.write(data)


def test_a_folder_appears_at_once(store: Storage, root: Path, names: Names) -> None:
    """The target does not exist before it is complete."""
    with store.output_folder("a/target") as folder:
        with folder.create_file("x/y") as file:
            file.write(b"1")
        assert not (root / "a" / "target").exists()
    assert names() == ["a", "a/target", "a/target/x", "a/target/x/y"]


def test_a_second_run_finds_its_work_done(store: Storage, names: Names) -> None:
    """A folder that has the same content already is no error."""
    fill(store, "target", a=b"1", b=b"2")
    first = names()
    fill(store, "target", a=b"1", b=b"2")
    assert names() == first


@pytest.mark.parametrize(
    "other", [{"a": b"1"}, {"a": b"1", "b": b"3"}, {"a": b"1", "b": b"22"}, {"a": b"1", "b": b"2", "c": b"3"}]
)
def test_a_folder_with_other_content_is_left_alone(
    store: Storage, names: Names, other: dict[str, bytes]
) -> None:
    """A folder is never replaced and never mixed with another."""
    fill(store, "target", **other)
    before = names()
    with pytest.raises(BadInput, match="holds something else"):
        fill(store, "target", a=b"1", b=b"2")
    assert names() == before


def test_an_empty_folder_is_taken_over(store: Storage, root: Path) -> None:
    """An empty folder at the target is replaced."""
    (root / "target").mkdir()
    fill(store, "target", a=b"1")
    assert (root / "target" / "sub" / "a").read_bytes() == b"1"


@pytest.mark.parametrize("in_the_way", ["file", "link"])
def test_something_else_in_the_way_is_left_alone(
    store: Storage, root: Path, tmp_path: Path, in_the_way: str
) -> None:
    """A file or a link at the target is neither replaced nor followed."""
    if in_the_way == "file":
        (root / "target").write_text("mine")
    else:
        (root / "target").symlink_to(tmp_path)
    with pytest.raises(BadInput):
        fill(store, "target", a=b"1")
    assert [path.name for path in root.iterdir()] == ["target"]


def create(store: Storage, *entries: str) -> None:
    with store.output_folder("a/target") as folder:
        for entry in entries:
            with folder.create_file(entry) as file:
                file.write(b"1")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..", "", ".", "a/..", "x\0y"])
def test_an_entry_cannot_leave_the_folder(store: Storage, names: Names, name: str) -> None:
    """No name of an entry is written outside the folder, and earlier entries are removed."""
    with pytest.raises(BadInput, match="outside"):
        create(store, "before", name)
    assert names() == []


@pytest.mark.parametrize("second", ["a", "a/b"])
def test_an_entry_that_comes_twice_is_refused(store: Storage, names: Names, second: str) -> None:
    """The second of two entries cannot replace the first, nor can a folder take a file's name."""
    with pytest.raises(BadInput):
        create(store, "a", second)
    assert names() == []


def test_a_link_put_into_the_folder_is_not_followed(store: Storage, root: Path, tmp_path: Path) -> None:
    """A link in place of a folder is not followed."""
    with store.output_folder("target") as folder:
        (root / ".target.0.millpond-part" / "out").symlink_to(tmp_path)
        with pytest.raises(BadInput), folder.create_file("out/x"):
            pass
    assert not (tmp_path / "x").exists()


def test_an_interruption_leaves_nothing_behind(store: Storage, names: Names) -> None:
    """Entries unpacked before are removed, and the folders made for them."""
    with pytest.raises(KeyboardInterrupt):
        _fill_and_stop(store)
    assert names() == []


def _fill_and_stop(store: Storage) -> None:
    with store.output_folder("a/b/target") as folder, folder.create_file("x/y"):
        raise KeyboardInterrupt


def test_a_folder_killed_while_it_is_filled_is_swept_by_the_next_run(
    store: Storage, root: Path, names: Names
) -> None:
    """SIGKILL leaves no half-filled folder under the target's name."""
    program = f"""
        import os, signal
        from millpond.tasks.files.storage import Storage
        with Storage(roots=({str(root)!r},)).output_folder("target") as folder:
            with folder.create_file("sub/a") as file:
                file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert done.returncode == -9
    assert not (root / "target").exists()
    assert ".target.0.millpond-part/sub/a" in names()
    fill(store, "target", a=b"1")
    assert names() == ["target", "target/empty", "target/sub", "target/sub/a"]


def test_a_folder_outside_the_roots_is_refused(store: Storage, tmp_path: Path) -> None:
    """Folders are confined as files are."""
    with pytest.raises(OutsideRoots):
        fill(store, str(tmp_path / "elsewhere"), a=b"1")
