"""An output appears whole under its name, or not at all."""

import errno
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from millpond.tasks.errors import BadInput, Cancelled, RetryLater, TooLarge
from millpond.tasks.files import partials
from millpond.tasks.files.os_errors import task_error_for
from millpond.tasks.files.storage import Storage

Names = Callable[[], list[str]]


def write(store: Storage, url: str, data: bytes = b"new") -> None:
    with store.open_output(url) as file:
        file.write(data)


def test_an_output_appears_only_when_it_is_whole(store: Storage, root: Path) -> None:
    """The old content of the target remains until the new one is complete."""
    (root / "target").write_bytes(b"old")
    with store.open_output("target") as file:
        file.write(b"new content")
        file.flush()
        assert (root / "target").read_bytes() == b"old"
    assert (root / "target").read_bytes() == b"new content"


@pytest.mark.parametrize("error", [ValueError("x"), Cancelled("x"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_leaves_nothing_behind(store: Storage, names: Names, error: BaseException) -> None:
    """Neither the file nor the folders made for it stay, a cancelled or interrupted task included."""
    with pytest.raises(type(error)):
        _write_and_fail(store, error)
    assert names() == []


def _write_and_fail(store: Storage, error: BaseException) -> None:
    with store.open_output("a/b/target") as file:
        file.write(b"half")
        raise error


def test_folders_that_were_there_stay_when_a_task_fails(store: Storage, root: Path, names: Names) -> None:
    """Only the failed task's own files are removed."""
    (root / "a").mkdir()
    with pytest.raises(ValueError), store.open_output("a/b/target"):
        raise ValueError
    assert names() == ["a"]


def test_a_folder_is_no_target_for_a_file(store: Storage, root: Path, names: Names) -> None:
    """A folder is not replaced by a file, and that is said before the work is done."""
    (root / "folder").mkdir()
    begun = []
    with pytest.raises(BadInput, match="is a folder"), store.open_output("folder"):
        begun.append("the work that would be lost")
    assert not begun
    assert names() == ["folder"]


def test_a_file_is_no_folder_for_a_target(store: Storage, root: Path) -> None:
    """A target below a file is refused in one line."""
    (root / "file").write_text("x")
    with pytest.raises(BadInput, match="no folder"):
        write(store, "file/target")


@pytest.mark.parametrize("length", [200, 240, 255])
def test_a_name_of_any_length_can_be_written(store: Storage, root: Path, length: int) -> None:
    """The name of the partial is not too long if the target's is not."""
    write(store, "n" * length)
    assert (root / ("n" * length)).read_bytes() == b"new"


def test_a_name_too_long_is_one_clear_line(store: Storage) -> None:
    """The error for a name over the file system's limit says so."""
    with pytest.raises(BadInput, match="too long"):
        write(store, "n" * 300)


def test_two_writers_of_one_target_do_not_mix(store: Storage, root: Path, names: Names) -> None:
    """Each writes a whole file; the last one to finish is seen."""
    with store.open_output("target") as one:
        one.write(b"1" * 1000)
        with store.open_output("target") as two:
            two.write(b"2" * 10)
        assert (root / "target").read_bytes() == b"2" * 10
        one.write(b"1" * 1000)
    assert (root / "target").read_bytes() == b"1" * 2000
    assert names() == ["target"]


def test_too_many_writers_of_one_target_wait(store: Storage, names: Names) -> None:
    """More than MAX_WRITERS writers of one target are retried later."""
    with pytest.raises(RetryLater, match="one target"):
        _nest(store, partials.MAX_WRITERS + 1)
    assert names() == []


def _nest(store: Storage, depth: int) -> None:
    if depth:
        with store.open_output("target"):
            _nest(store, depth - 1)
    else:
        raise AssertionError("more writers than there are slots")


def test_what_lies_at_the_temporary_name_is_not_written_to(
    store: Storage, root: Path, tmp_path: Path
) -> None:
    """A link or file put at the temporary name is removed, never followed or reused."""
    outside = tmp_path / "outside"
    outside.write_text("secret")
    for slot in range(partials.MAX_WRITERS):
        partial = root / partials.partial_name("target", slot)
        if slot % 2:
            partial.symlink_to(outside)
        else:
            partial.hardlink_to(outside)
    write(store, "target")
    assert outside.read_text() == "secret"
    assert [path.name for path in root.iterdir()] == ["target"]


def test_a_name_kept_for_partials_is_refused(store: Storage) -> None:
    """A target with the name of a partial is refused."""
    with pytest.raises(BadInput, match="half written"):
        write(store, partials.partial_name("target", 0))


def _child(root: Path, body: str) -> "subprocess.Popen[str]":
    """Start a process that opens `target` as `file`, runs `body`, and waits. It is returned once it waits."""
    program = f"""
        import sys
        from millpond.tasks.files.storage import Storage
        store = Storage(roots=({str(root)!r},))
        with store.open_output("target") as file:
            {body}
            print("ready", flush=True)
            sys.stdin.read()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def _kill(child: "subprocess.Popen[str]") -> None:
    child.kill()
    child.communicate()


def test_a_task_killed_while_it_writes_leaves_the_old_content(
    store: Storage, root: Path, names: Names
) -> None:
    """SIGKILL leaves the target as it was, and a partial, which the next run removes."""
    (root / "target").write_bytes(b"old")
    child = _child(root, "file.write(b'half' * 100_000)")
    _kill(child)
    assert (root / "target").read_bytes() == b"old"
    assert names() == [".target.0.millpond-part", "target"]
    write(store, "target")
    assert (root / "target").read_bytes() == b"new"
    assert names() == ["target"]


def test_a_living_writer_is_not_swept(store: Storage, root: Path, names: Names) -> None:
    """The partial of a process that still writes is not removed."""
    child = _child(root, "file.write(b'theirs')")
    try:
        write(store, "target")
        assert names() == [".target.0.millpond-part", "target"]
        child.communicate("")  # lets it finish
    finally:
        _kill(child)
    assert (root / "target").read_bytes() == b"theirs"
    assert names() == ["target"]


@pytest.mark.parametrize("piece", [1_000, 10_000_000])
def test_a_disk_that_fills_up_is_tried_later(store: Storage, small_disk: Path, piece: int) -> None:
    """On a full disk, the written part is removed, and the task succeeds once there is room."""
    (small_disk / "old").write_bytes(b"x" * 500_000)
    with pytest.raises(RetryLater, match="no room left to write disk/a/target"):
        _write_pieces(store, "disk/a/target", piece)
    assert [path.name for path in small_disk.iterdir()] == ["old"]
    (small_disk / "old").unlink()
    write(store, "disk/a/target", b"x" * 900_000)


def _write_pieces(store: Storage, url: str, piece: int) -> None:
    with store.open_output(url) as file:
        for _ in range(2_000_000 // piece + 1):
            file.write(b"x" * piece)


def test_a_disk_that_fills_up_while_a_folder_is_filled_is_tried_later(
    store: Storage, small_disk: Path
) -> None:
    """On a full disk, all files of an incomplete folder are removed."""
    with pytest.raises(RetryLater, match="no room left"):
        _fill(store, "disk/folder", files=20)
    assert list(small_disk.iterdir()) == []


def _fill(store: Storage, url: str, files: int) -> None:
    with store.output_folder(url) as folder:
        for number in range(files):
            with folder.create_file(f"a/{number}") as file:
                file.write(b"x" * 100_000)


def test_a_file_over_the_limit_of_its_process_is_final(store: Storage, names: Names) -> None:
    """A file over the process's limit of file sizes is not retried."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(TooLarge, match="largest file"):
            write(store, "target", b"x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names() == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE])
def test_what_may_pass_is_tried_later(number: int) -> None:
    """An error of a disk or server that may pass is retried."""
    assert isinstance(task_error_for(OSError(number, os.strerror(number)), "x", "read"), RetryLater)


def test_an_error_of_the_source_is_not_blamed_on_the_target(store: Storage, names: Names) -> None:
    """Each message names the file at fault."""
    with (
        pytest.raises(BadInput, match="nothing does not exist"),
        store.open_output("target"),
        store.open_input("nothing"),
    ):
        pass
    assert names() == []


def test_a_library_that_needs_a_path_gets_one(store: Storage, root: Path) -> None:
    """Reading and writing by path goes to the same confined files."""
    with store.local_output("target") as path:
        Path(path).write_bytes(b"by path")
    with store.local_input("target") as path:
        assert Path(path).read_bytes() == b"by path"
    assert [entry.name for entry in root.iterdir()] == ["target"]


def test_no_descriptor_is_left_open(store: Storage, root: Path) -> None:
    """Failed tasks leave no descriptor open in a process that runs thousands."""
    (root / "file").write_text("x")
    (root / "folder").mkdir()

    def run_all() -> None:
        for url in ("a/b/target", "file/target", "folder", "n" * 300, "../x"):
            with suppress(BadInput):
                write(store, url)
            with suppress(BadInput), store.open_input(url):
                pass
            with suppress(BadInput), store.output_folder(url):
                raise BadInput("x")

    run_all()
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(20):
        run_all()
    assert len(list(Path("/dev/fd").iterdir())) == before
