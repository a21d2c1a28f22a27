"""Storage services are held to the same promises as a local disk, as far as they can keep them."""

import os
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, FinalError, OutsideRoots, RetryLater
from millpond.tasks.files.compression import compress
from millpond.tasks.files.contract import Compress
from millpond.tasks.files.locations import PARTIAL_SUFFIX
from millpond.tasks.files.storage import Storage


@pytest.fixture
def bucket() -> Iterator[str]:
    """Return the URL of an empty folder in fsspec's memory."""
    url = f"memory://bucket-{uuid.uuid4().hex}/base"
    yield url
    system = fsspec.filesystem("memory")
    if system.exists(url):
        system.rm(url, recursive=True)


@pytest.fixture
def remote(bucket: str) -> Storage:
    """Return storage confined to `bucket`."""
    return Storage(roots=(bucket,))


@pytest.fixture
def keys(bucket: str) -> Callable[[], list[str]]:
    """Return a function that lists the keys below `bucket`."""
    base = "/" + bucket.split("://")[1] + "/"
    return lambda: sorted(key.removeprefix(base) for key in fsspec.filesystem("memory").find(base))


def put(store: Storage, url: str, data: bytes = b"new") -> None:
    with store.open_output(url) as file:
        file.write(data)


def get(store: Storage, url: str) -> bytes:
    with store.open_input(url) as file:
        return file.read()


def test_an_object_is_written_whole_and_read_back(remote: Storage, bucket: str, keys: Any) -> None:
    """By URL or relative to the first root, under its name alone."""
    put(remote, "a/b.txt", b"x" * 3_000_000)
    assert get(remote, f"{bucket}/a/b.txt") == b"x" * 3_000_000
    put(remote, "a/b.txt", b"again")
    assert get(remote, "a/b.txt") == b"again"
    assert keys() == ["a/b.txt"]


def test_an_error_sends_nothing(remote: Storage, keys: Any) -> None:
    """A handler that fails leaves no key."""
    with pytest.raises(KeyboardInterrupt), remote.open_output("a"):
        raise KeyboardInterrupt
    assert keys() == []


@pytest.mark.parametrize("failing", ["open", "cp_file"])
def test_a_service_that_fails_is_tried_later(
    remote: Storage, keys: Any, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Any error of a service while an object is sent is retried, and leaves no key."""

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("gone")

    put(remote, "there", b"old")
    monkeypatch.setattr(fsspec.filesystem("memory"), failing, fail)
    with pytest.raises(RetryLater):
        put(remote, "there")
    monkeypatch.undo()
    assert keys() == ["there"]
    assert get(remote, "there") == b"old"


def test_a_leftover_of_a_killed_task_is_taken_up(remote: Storage, keys: Any) -> None:
    """The temporary key is made of the content, so the same run replaces it and moves it."""
    system = fsspec.filesystem("memory")
    moved = []

    class Killed(BaseException):
        pass

    def die(temporary: str, path: str) -> None:
        moved.append(temporary)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "cp_file", die)
        patch.setattr(system, "rm_file", die)
        with pytest.raises(Killed):
            put(remote, "target")
    assert [key for key in keys() if key.endswith(PARTIAL_SUFFIX)] == keys() != []
    put(remote, "target")
    assert keys() == ["target"]


NAMES = ["a*b", "a?b", "[ab]", "*", "?", "**", "{a,b}", "a b%20c", "x/*/y", "ä*", "a[!b]"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_pattern(remote: Storage, keys: Any, name: str) -> None:
    """A target with a star is written under that name; files that it matches are not touched."""
    others = ["aXb", "a", "b", "x/z/y", "c"]
    for other in others:
        put(remote, other, b"other")
    put(remote, name, b"content")
    assert get(remote, name) == b"content"
    assert keys() == sorted([*others, name])
    assert all(get(remote, other) == b"other" for other in others)
    put(remote, name, b"again")
    assert get(remote, name) == b"again"


def test_names_in_a_folder_are_no_patterns(remote: Storage, keys: Any) -> None:
    """The name of an archive's entry is not used as a pattern, either."""
    fill(remote, "a*", "ab", "b/[c]")
    assert keys() == ["folder/a*", "folder/ab", "folder/b/[c]"]
    assert get(remote, "folder/a*") == b"a*"


@pytest.mark.parametrize("left", [None, 0, 6])
def test_a_target_is_there_after_writing(
    remote: Storage, keys: Any, monkeypatch: pytest.MonkeyPatch, left: int | None
) -> None:
    """An object that is missing or too short after it was sent is sent again."""
    system = fsspec.filesystem("memory")
    copy = system.cp_file

    def lose(one: str, other: str) -> None:
        copy(one, other)
        if left is None:
            system.rm_file(other)
        else:
            system.pipe_file(other, b"content"[:left])

    monkeypatch.setattr(system, "cp_file", lose)
    with pytest.raises(RetryLater, match="is not there after 7" if left is None else f"is {left} bytes long"):
        put(remote, "a", b"content")
    assert [key for key in keys() if key.endswith(PARTIAL_SUFFIX)] == []


@pytest.mark.parametrize("in_the_way", ["link", "file", "mode"])
def test_the_folder_for_what_is_collected_is_ours_alone(
    remote: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Any, in_the_way: str
) -> None:
    """A scratch folder that may belong to another user is not used, and the error names the setting."""
    monkeypatch.setenv("MILLPOND_SCRATCH", str(tmp_path))
    own = tmp_path / f"millpond-{os.getuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    put(remote, "before", b"x")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert list(own.iterdir()) == []
    own.rmdir()
    match in_the_way:
        case "link":
            own.symlink_to(elsewhere)
        case "file":
            own.touch()
        case "mode":
            own.mkdir(mode=0o777)
            own.chmod(0o777)
    for act in (lambda: put(remote, "a"), lambda: fill(remote, "a"), lambda: _path_of(remote)):
        with pytest.raises(FinalError, match="MILLPOND_SCRATCH"):
            act()
    assert keys() == ["before"]
    assert list(elsewhere.iterdir()) == []


def _path_of(store: Storage) -> None:
    with store.local_input("before"):
        pass


@pytest.mark.parametrize(
    "url",
    ["memory://elsewhere/x", "{bucket}-other/x", "{bucket}/../x", "{bucket}/./x", "{bucket}", "../x", "/x"],
)
def test_a_key_outside_the_roots_is_refused(remote: Storage, bucket: str, url: str) -> None:
    """No spelling of a key outside the roots is read or written."""
    for act in (put, get):
        with pytest.raises(OutsideRoots):
            act(remote, url.format(bucket=bucket))


def test_a_chain_of_file_systems_is_refused(remote: Storage, bucket: str) -> None:
    """fsspec's `::` cannot lead from a root to somewhere else."""
    with pytest.raises(OutsideRoots, match="::"):
        get(remote, f"{bucket}/x::file:///etc/passwd")


def test_a_missing_object_is_one_clear_line(remote: Storage) -> None:
    """The error for a missing object is that for a missing file."""
    with pytest.raises(BadInput, match=r"^nothing does not exist"):
        get(remote, "nothing")


def test_a_protocol_without_its_library_says_so() -> None:
    """The message names the package to install."""
    with pytest.raises(FinalError, match="nosuch"):
        get(Storage(roots=("nosuch://bucket",)), "x")


def test_a_folder_is_sent_file_by_file(remote: Storage, keys: Any) -> None:
    """A second run finds its work done; a folder of other content is left alone."""
    fill(remote, "a", "b/c")
    fill(remote, "a", "b/c")
    assert keys() == ["folder/a", "folder/b/c"]
    with pytest.raises(BadInput, match="holds something else"):
        fill(remote, "other")
    assert keys() == ["folder/a", "folder/b/c"]


def fill(store: Storage, *names: str) -> None:
    with store.output_folder("folder") as folder:
        for name in names:
            with folder.create_file(name) as file:
                file.write(name.encode())


def test_a_path_is_given_for_an_object(remote: Storage) -> None:
    """A library that needs a path gets the path of a local copy."""
    put(remote, "a", b"content")
    with remote.local_input("a") as path, open(path, "rb") as file:  # noqa: PTH123 - by path, as a library does
        assert file.read() == b"content"


def test_a_body_runs_on_a_service_as_on_a_disk(remote: Storage, context: Context, keys: Any) -> None:
    """An operation runs with objects as it does with local files."""
    put(remote, "a", b"content" * 1000)
    result = compress(Compress(source="a", target="b.zst"), remote, context)
    assert len(get(remote, "b.zst")) == result.bytes
    assert keys() == ["a", "b.zst"]
