"""Checksums and compressed files are right, and the same on each run."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, RetryLater
from millpond.tasks.files import compression
from millpond.tasks.files.checksum import compute_checksum
from millpond.tasks.files.chunked_reading import CHUNK_BYTES
from millpond.tasks.files.compression import compress
from millpond.tasks.files.contract import Checksum, Compress
from millpond.tasks.files.storage import Storage

Names = Callable[[], list[str]]
TEXT = b"".join(b"line %d\n" % number for number in range(300_000))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha1", "md5", "blake2b"])
@pytest.mark.parametrize("content", [b"", b"abc", TEXT], ids=["empty", "short", "long"])
def test_a_checksum_is_that_of_the_content(
    store: Storage, root: Path, context: Context, algorithm: str, content: bytes
) -> None:
    """Every algorithm agrees with the standard library on the whole content, an empty one included."""
    (root / "a").write_bytes(content)
    result = compute_checksum(Checksum(source="a", algorithm=algorithm), store, context)
    assert result.digest == hashlib.new(algorithm, content).hexdigest()
    assert result.bytes == len(content)


@pytest.mark.parametrize("content", [b"", b"abc", TEXT], ids=["empty", "short", "long"])
@pytest.mark.parametrize("level", [1, 3, 19])
def test_what_is_compressed_comes_back(
    store: Storage, root: Path, context: Context, content: bytes, level: int
) -> None:
    """The frame has the content, the content's length and its checksum."""
    content = content[:500_000] if level == 19 else content
    (root / "a").write_bytes(content)
    result = compress(Compress(source="a", target="b/a.zst", level=level), store, context)
    packed = (root / "b" / "a.zst").read_bytes()
    assert result.bytes == len(packed)
    parameters = zstandard.get_frame_parameters(packed)
    assert parameters.content_size == len(content)
    assert parameters.has_checksum
    assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read() == content


def test_a_higher_level_packs_tighter(store: Storage, root: Path, context: Context) -> None:
    """A higher level makes a shorter file."""
    (root / "a").write_bytes(Path(__file__).read_bytes())
    lengths = [
        compress(Compress(source="a", target="b", level=level), store, context).bytes for level in (19, 1)
    ]
    assert lengths == sorted(set(lengths))


def test_progress_is_in_bytes(store: Storage, root: Path, context: Context) -> None:
    """Progress begins with the first chunk and ends with the file's length."""
    (root / "a").write_bytes(TEXT)
    progress: list[tuple[int, int | None]] = []
    compute_checksum(
        Checksum(source="a"),
        store,
        replace(context, report=lambda done, total: progress.append((done, total))),
    )
    assert progress[0] == (CHUNK_BYTES, len(TEXT))
    assert progress[-1] == (len(TEXT), len(TEXT))


@pytest.mark.parametrize("change", [-10, 10])
def test_a_file_that_changes_while_it_is_read_is_tried_later(
    store: Storage, root: Path, context: Context, names: Names, change: int
) -> None:
    """A file that changes its length meanwhile is retried, so no frame has a wrong length."""
    (root / "a").write_bytes(TEXT)

    def resize(done: int, total: int | None) -> None:
        with (root / "a").open("r+b") as file:
            file.truncate(len(TEXT) + change)

    with pytest.raises(RetryLater, match="changed while it was read"):
        compress(Compress(source="a", target="b"), store, replace(context, report=resize))
    assert names() == ["a"]


def test_a_missing_source_leaves_nothing(store: Storage, context: Context, names: Names) -> None:
    """No folder is made for an output if the source is missing."""
    with pytest.raises(BadInput, match="does not exist"):
        compression.compress(Compress(source="a", target="x/y/b"), store, context)
    assert names() == []
