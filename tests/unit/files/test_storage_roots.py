"""Storage reads and writes nothing outside its roots, whatever names and links there are."""

import json
import os
import socket
from pathlib import Path

import pytest

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, FinalError, OutsideRoots, TooLarge
from millpond.tasks.files import local
from millpond.tasks.files.checksum import compute_checksum
from millpond.tasks.files.contract import Checksum, Compress, file_url
from millpond.tasks.files.locations import LocalLocation, locate
from millpond.tasks.files.storage import Storage
from millpond.tasks.settings import Files


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a file beside the root."""
    path = tmp_path / "secret.txt"
    path.write_text("secret")
    return path


def read(store: Storage, url: str) -> bytes:
    with store.open_input(url) as file:
        return file.read()


def write(store: Storage, url: str, data: bytes = b"new") -> None:
    with store.open_output(url) as file:
        file.write(data)


@pytest.mark.parametrize(
    "url",
    [
        "../secret.txt",
        "a/../../secret.txt",
        "{outside}",
        "file://{outside}",
        "file:///{outside}",
        "file://{root}/%2e%2e/secret.txt",
        "file://{root}/..%2fsecret.txt",
        "{root}/../secret.txt",
        "{root}-sibling/x",
        "s3://bucket/key",
        "memory://x",
        "dir::file://{outside}",
        "/etc/passwd",
    ],
)
def test_a_name_outside_the_roots_is_refused_to_read_and_to_write(
    store: Storage, root: Path, secret: Path, url: str
) -> None:
    """No spelling of a place outside the roots is read or written."""
    url = url.format(outside=secret, root=root)
    with pytest.raises(BadInput):
        read(store, url)
    if not url.startswith("dir::"):  # that one is a relative path like any other
        with pytest.raises(BadInput):
            write(store, url)
    assert secret.read_text() == "secret"


def test_a_way_up_is_refused_even_within_the_root(store: Storage, root: Path) -> None:
    """A '..' is refused, because links decide where it leads."""
    (root / "a").mkdir()
    (root / "file").write_text("inside")
    for act in (read, write):
        with pytest.raises(OutsideRoots, match="climbs out"):
            act(store, "a/../file")
    assert (root / "file").read_text() == "inside"


def test_a_sibling_whose_name_begins_like_the_root_is_outside(store: Storage, root: Path) -> None:
    """/data-private is not below /data."""
    sibling = root.with_name("root-private")
    sibling.mkdir()
    (sibling / "x").write_text("secret")
    with pytest.raises(OutsideRoots):
        read(store, str(sibling / "x"))


def test_a_link_out_of_the_root_is_refused(store: Storage, root: Path, secret: Path) -> None:
    """A symbolic link to a file outside is not read."""
    (root / "link").symlink_to(secret)
    with pytest.raises(OutsideRoots):
        read(store, "link")


def test_a_folder_linked_out_of_the_root_is_refused(store: Storage, root: Path, secret: Path) -> None:
    """Nothing is read or written through a link to a folder outside."""
    (root / "folder").symlink_to(secret.parent)
    with pytest.raises(OutsideRoots):
        read(store, "folder/secret.txt")
    with pytest.raises(OutsideRoots):
        write(store, "folder/secret.txt")
    assert secret.read_text() == "secret"


def test_a_link_within_the_root_is_followed(store: Storage, root: Path) -> None:
    """A link to a folder within the root is followed."""
    (root / "a").mkdir()
    (root / "a" / "file").write_bytes(b"inside")
    (root / "link").symlink_to(root / "a")
    assert read(store, "link/file") == b"inside"
    write(store, "link/other")
    assert (root / "a" / "other").read_bytes() == b"new"


def test_writing_replaces_a_link_and_leaves_what_it_leads_to(
    store: Storage, root: Path, secret: Path
) -> None:
    """A link of the target's name is replaced, never written through."""
    (root / "target").symlink_to(secret)
    write(store, "target")
    assert secret.read_text() == "secret"
    assert not (root / "target").is_symlink()
    assert (root / "target").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["folder/file", "file"])
def test_a_link_swapped_in_after_the_check_is_not_followed(
    store: Storage, root: Path, secret: Path, name: str
) -> None:
    """A link that is made between the check and the opening is refused."""
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("inside")
    place = locate(name, store.roots)
    assert isinstance(place, LocalLocation)
    path.unlink()
    if path.parent == root:
        path.symlink_to(secret)
    else:
        path.parent.rmdir()
        path.parent.symlink_to(secret.parent)
        (secret.parent / "file").write_text("secret")
    with pytest.raises(BadInput), local.open_input(place):
        pass
    if path.parent != root:
        with pytest.raises(BadInput), local.open_output(place):
            pass
    assert (secret.parent / "secret.txt").read_text() == "secret"


def test_a_loop_of_links_is_refused(store: Storage, root: Path) -> None:
    """The error for a link to itself is one line."""
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(BadInput, match="link"):
        read(store, "loop")


def test_only_regular_files_are_read(store: Storage, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe does not hang the task, and a device or folder is no input."""
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    for name in ("pipe", "socket"):
        with pytest.raises(BadInput, match="regular"):
            read(store, name)
    with pytest.raises(BadInput, match="folder"):
        read(store, "folder")
    with pytest.raises(BadInput, match="regular"), Storage(roots=("/dev",)).open_input("/dev/zero"):
        pass


def test_without_roots_everything_is_refused(secret: Path) -> None:
    """No configuration means no access, and says which setting is missing."""
    with (
        pytest.raises(OutsideRoots, match="MILLPOND_FILES__ROOTS"),
        Storage(roots=()).open_input(str(secret)),
    ):
        pass


def test_the_root_itself_is_no_file(store: Storage, root: Path) -> None:
    """A root itself is neither read nor replaced."""
    for act in (read, write):
        with pytest.raises(BadInput):
            act(store, str(root))


@pytest.mark.parametrize(
    "name", [b"caf\xe9.txt", b"\xff\xfe", b"new\nline", "grün%20 [x].txt".encode(), b"100%"]
)
def test_a_name_in_any_encoding_passes_through_a_contract(
    store: Storage, root: Path, context: Context, name: bytes
) -> None:
    """A name that is no UTF-8 can be sent as JSON, and the file is found."""
    path = root / os.fsdecode(name)
    path.write_bytes(b"content")
    sent = json.dumps(Checksum(source=file_url(path)).model_dump())
    result = compute_checksum(Checksum(**json.loads(sent)), store, context)
    assert result.bytes == 7
    write(store, file_url(f"{path}.copy"), b"x")
    assert {os.fsencode(entry.name) for entry in root.iterdir()} == {name, name + b".copy"}


def test_a_control_character_is_refused_before_anything_is_sent() -> None:
    """A contract refuses a control character, which could break a log line."""
    for name in ("a\nb", "a\0b", "a\x1bb", "a\x85b", "a\u2028b"):
        with pytest.raises(ValueError, match="control character"):
            Checksum(source=name)


def test_a_zero_byte_hidden_in_a_url_is_refused(store: Storage) -> None:
    """A percent-encoded zero byte is refused."""
    with pytest.raises(BadInput, match="zero byte"):
        read(store, "file:///x%00y")


def test_a_missing_file_is_one_clear_line(store: Storage) -> None:
    """The message names the file as the sender did."""
    with pytest.raises(BadInput, match=r"^nothing\.txt does not exist: check the path$"):
        read(store, "nothing.txt")


def test_a_file_over_the_limit_is_not_read(root: Path) -> None:
    """max_input_bytes holds before anything is read."""
    (root / "big").write_bytes(b"x" * 101)
    store = Storage(roots=(str(root),), limits=Files(max_input_bytes=100))
    with pytest.raises(TooLarge, match="max_input_bytes"):
        read(store, "big")


def test_a_file_without_access_is_final(root: Path, store: Storage) -> None:
    """The error for a file without access names the remedy, and the task is not retried."""
    for folder in [root, *root.parents][:4]:
        if folder.stat().st_uid == os.geteuid() and folder.name:
            folder.chmod(0o755)
    (root / "private").write_text("x")
    (root / "private").chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(FinalError, match="may not be read"):
            read(store, "private")
        if user == 0:
            with pytest.raises(FinalError, match="may not be written"):
                write(store, "new")
    finally:
        os.seteuid(user)


def test_a_source_is_never_its_own_target(store: Storage, root: Path) -> None:
    """Two spellings of one file are one file."""
    (root / "a").write_text("x")
    (root / "link").symlink_to(root / "a")
    with pytest.raises(BadInput, match="source itself"):
        store.refuse_same_file("link", f"file://{root}/a")
    with pytest.raises(ValueError, match="differ"):
        Compress(source="a", target="a")
