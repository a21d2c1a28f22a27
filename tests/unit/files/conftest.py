"""Fixtures of the file tests: a root, its storage, and functions that run an operation on given content."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
from millpond.tasks.files.archives import unpack
from millpond.tasks.files.contract import (
    ConvertImage,
    FolderResult,
    ImageResult,
    TableResult,
    Thumbnail,
    ToParquet,
    Unpack,
)
from millpond.tasks.files.images import convert_image, make_thumbnail
from millpond.tasks.files.storage import Storage
from millpond.tasks.settings import Files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the folder that is the only root of `store`."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def store(root: Path) -> Storage:
    """Return storage confined to `root`."""
    return Storage(roots=(str(root),))


@pytest.fixture
def context() -> Context:
    """Return the context of a handler that is called by hand."""
    return Context()


@pytest.fixture
def names(root: Path) -> Callable[[], list[str]]:
    """Return a function that lists everything below `root`."""
    return lambda: sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def scene() -> Image.Image:
    """Return a picture of 640 x 480 pixels: red above, blue below, a gradient and grain across."""
    picture = Image.new("RGB", (640, 480), (40, 60, 200))
    picture.paste((220, 40, 40), (0, 0, 640, 240))
    grain = Image.effect_noise(picture.size, 40).convert("RGB")
    return Image.blend(picture, grain, 0.2)


@pytest.fixture(
    params=[(make_thumbnail, Thumbnail), (convert_image, ConvertImage)], ids=["thumbnail", "convert"]
)
def make_image(
    request: pytest.FixtureRequest, store: Storage, context: Context
) -> Callable[..., ImageResult]:
    """Return a function that makes a thumbnail or converts an image, with these fields of the contract."""
    operation, contract = request.param
    return lambda **fields: operation(contract(**fields), store, context)  # type: ignore[no-any-return]


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, root: Path) -> Iterator[Path]:
    """Return a folder below the root on a file system of 1 MB, or of the size in the fixture's parameter."""
    disk = root / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", f"size={getattr(request, 'param', '1m')}", "millpond-test", str(disk)]
    if not mount or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def to_table(store: Storage, root: Path, context: Context) -> Callable[..., tuple[TableResult, Any]]:
    """Return a function that converts a table to Parquet, and returns the result and the table read back."""
    import pyarrow.parquet as pq

    from millpond.tasks.files.tables import to_parquet

    def convert(content: bytes, *, name: str = "in.csv", **options: Any) -> tuple[TableResult, Any]:
        (root / name).write_bytes(content)
        result = to_parquet(ToParquet(source=name, target="out.parquet", **options), store, context)
        return result, pq.read_table(root / "out.parquet")

    return convert


@pytest.fixture
def refused_table(to_table: Callable[..., tuple[TableResult, Any]], root: Path) -> Callable[..., str]:
    """Return a function that converts a bad table, and returns the error's message. No output may be left."""

    def refuse(content: bytes, *, name: str = "in.csv", **options: Any) -> str:
        (root / "out.parquet").unlink(missing_ok=True)
        with pytest.raises(BadInput) as caught:
            to_table(content, name=name, **options)
        assert [path.name for path in root.iterdir()] == [name]
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refuse


@pytest.fixture
def unpacked(store: Storage, root: Path, context: Context) -> Callable[..., dict[str, bytes | None]]:
    """Return a function that unpacks an archive, and returns its files with their content, and empty folders.

    A folder has None for its content.
    """

    def run(content: bytes, **options: str) -> dict[str, bytes | None]:
        (root / "in").write_bytes(content)
        shutil.rmtree(root / "out", ignore_errors=True)
        result = unpack(Unpack(source="in", target="out", **options), store, context)
        tree = {
            str(path.relative_to(root / "out")): path.read_bytes() if path.is_file() else None
            for path in (root / "out").rglob("*")
            if path.is_file() or not any(path.iterdir())
        }
        files = [data for data in tree.values() if data is not None]
        assert result == FolderResult(target="out", files=len(files), bytes=sum(map(len, files)))
        return tree

    return run


@pytest.fixture
def refusal(root: Path, tmp_path: Path, context: Context) -> Callable[..., str]:
    """Return a function that unpacks a bad archive, and returns the message. Nothing may be left anywhere."""

    def run(
        content: bytes, *, error: type[Exception] = BadInput, encoding: str | None = None, **limits: int
    ) -> str:
        (root / "in").write_bytes(content)
        shutil.rmtree(root / "out", ignore_errors=True)
        outside = sorted(tmp_path.iterdir())
        store = Storage(roots=(str(root),), limits=Files.model_validate(limits))
        with pytest.raises(error) as caught:
            unpack(Unpack(source="in", target="a/out", encoding=encoding), store, context)
        assert [path.name for path in root.iterdir()] == ["in"]
        assert sorted(tmp_path.iterdir()) == outside
        message = str(caught.value)
        assert "\n" not in message
        return message

    return run
