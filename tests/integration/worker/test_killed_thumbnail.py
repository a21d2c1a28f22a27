"""A worker that is killed in the middle of a thumbnail: in the end the file is there, once, and whole."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from PIL import Image

from millpond.broker.inspect import depth
from millpond.producer.client import Client
from millpond.tasks.files.contract import Thumbnail
from millpond.tasks.settings import Files, Settings
from millpond.worker.local.embedded import Embedded, embedded
from tests.conftest import Eventually

#: Large enough that writing its thumbnail takes most of a second.
SIZE = (8_000, 6_000)
#: A killed worker's task goes back when its lease runs out; the default is fifteen seconds.
LEASE_SECONDS = 2.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder that holds one large photograph."""
    folder = tmp_path_factory.mktemp("root")
    Image.linear_gradient("L").resize(SIZE).convert("RGB").save(folder / "large.png", compress_level=1)
    return folder


@pytest.fixture(scope="module")
def files_pool(root: Path) -> Iterator[Embedded]:
    """Run the pool `files`: a supervisor, a worker, and its prefork children."""
    settings = Settings(
        files=Files(roots=(str(root),)),
        drain_seconds=5,
        table={"queues": {"files": {"lease_seconds": LEASE_SECONDS}}},
    )
    with embedded(settings, pools=["files"]) as running:
        yield running


@pytest.fixture(scope="module")
def whole(files_pool: Embedded, root: Path) -> bytes:
    """Return the thumbnail of the photograph, made undisturbed."""
    target = root / "undisturbed.jpg"
    with Client(settings=files_pool.settings) as client:
        with client.batch() as batch:
            batch.send(Thumbnail(source=str(root / "large.png"), target=str(target)))
        assert batch.wait(timedelta(seconds=60)).succeeded == 1
    return target.read_bytes()


@pytest.mark.parametrize("victim", ["the prefork child", "the whole worker"])
def test_a_worker_killed_in_the_middle_of_a_thumbnail(
    victim: str, files_pool: Embedded, root: Path, whole: bytes, eventually: Eventually
) -> None:
    """After SIGKILL during the write, the thumbnail is there, whole and alone, by one success."""
    folder = root / victim.replace(" ", "-")
    folder.mkdir()
    with Client(settings=files_pool.settings) as client:
        before = depth.read_depth(client.store, "files").counters.get("redelivered", 0)
        with client.batch() as batch:
            batch.send(Thumbnail(source=str(root / "large.png"), target=str(folder / "thumb.jpg")))
            writer = eventually(lambda: _writer(files_pool.pids["pools"]), 30, every_seconds=0.002)
            (writer if victim == "the prefork child" else writer.parent()).kill()
            assert not (folder / "thumb.jpg").exists(), "it was killed too late to show anything"
        summary = batch.wait(timedelta(seconds=60))
        assert (summary.sent, summary.succeeded, summary.complete) == (1, 1, True)
        assert len(list(batch.results())) == 1
        assert depth.read_depth(client.store, "files").counters.get("redelivered", 0) == before + 1
    assert (folder / "thumb.jpg").read_bytes() == whole
    assert sorted(path.name for path in folder.iterdir()) == ["thumb.jpg"]


def _writer(supervisor: int) -> psutil.Process | None:
    """Return the process below the supervisor that has an unfinished output open."""
    for process in psutil.Process(supervisor).children(recursive=True):
        try:
            if any(file.path.endswith(".millpond-part") for file in process.open_files()):
                return process
        except psutil.NoSuchProcess:
            continue
    return None
