"""The promises of every file handler, run by its kind as a worker does."""

import json
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from archive_makers import make_tar
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

import millpond.tasks.files.task  # noqa: F401 - declares the handlers
from millpond.tasks.context import Context
from millpond.tasks.contract import contracts_by_kind
from millpond.tasks.errors import BadInput, Cancelled, OutsideRoots, RetryLater
from millpond.tasks.files.contract import (
    Checksum,
    Compress,
    ConvertImage,
    PdfText,
    Thumbnail,
    ToParquet,
    Unpack,
)
from millpond.tasks.handlers import handlers_by_kind

MEGABYTE = 1024 * 1024


@pytest.fixture
def configured(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return `root`, which is the only root in the settings during a test."""
    monkeypatch.setenv("MILLPOND_FILES__ROOTS", json.dumps([str(root)]))
    return root


def _pdf() -> bytes:
    buffer = BytesIO()
    canvas = Canvas(buffer)
    for page in range(5):
        canvas.drawString(100, 100, f"page {page}" + "x" * 20_000)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _photograph() -> bytes:
    buffer = BytesIO()
    Image.effect_noise((3_000, 2_000), 40).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


#: Jobs of each kind, each with a function that makes the content of its source. Each makes over 64 kB of it.
JOBS: list[tuple[Any, Callable[[], bytes]]] = [
    (Checksum(source="in"), lambda: bytes(4 * MEGABYTE)),
    (Compress(source="in", target="out"), lambda: os.urandom(4 * MEGABYTE)),
    (
        ToParquet(source="in.csv", target="out"),
        lambda: b"a,b\n" + b"".join(b"%d,%d\n" % (n, n) for n in range(500_000)),
    ),
    (
        ToParquet(source="in.jsonl", target="out"),
        lambda: b"".join(b'{"a":%d,"b":[1,{"c":"x%d"}]}\n{"a":2.5}\n' % (n, n) for n in range(20_000)),
    ),
    (PdfText(source="in.pdf", target="out"), _pdf),
    (
        Unpack(source="in.tar", target="out"),
        lambda: make_tar(*((f"e{n}", bytes(MEGABYTE)) for n in range(5))),
    ),
    (Thumbnail(source="in.jpg", target="out.jpg", width=1_000, height=1_000), _photograph),
    (ConvertImage(source="in.jpg", target="out.png"), _photograph),
]
KINDS = [job.kind for job, _ in JOBS]


def test_every_file_contract_has_a_handler() -> None:
    """Every contract that may be sent can be run, and is among `JOBS`."""
    sent = {kind for kind in contracts_by_kind() if kind.startswith("files.")}
    assert sent == {kind for kind in handlers_by_kind() if kind.startswith("files.")} == set(KINDS)


def test_a_handler_works_below_the_configured_roots(configured: Path, context: Context) -> None:
    """The roots are those of the environment."""
    (configured / "a").write_bytes(b"abc")
    run = handlers_by_kind()
    assert run["files.checksum"].function(Checksum(source="a", algorithm="md5"), context).digest == (
        "900150983cd24fb0d6963f7d28e17f72"
    )
    assert run["files.compress"].function(Compress(source="a", target="b"), context).target == "b"
    with pytest.raises(OutsideRoots):
        run["files.checksum"].function(Checksum(source="/etc/passwd"), context)


@pytest.mark.parametrize(("job", "make_content"), JOBS, ids=KINDS)
def test_a_cancelled_handler_stops_between_two_pieces(
    job: Any, make_content: Callable[[], bytes], configured: Path, names: Callable[[], list[str]]
) -> None:
    """A task that is cancelled after its first checkpoint stops at the second, and leaves no target."""
    (configured / job.source).write_bytes(make_content())
    answers = iter([False])
    with pytest.raises(Cancelled, match="task t was cancelled while it ran"):
        handlers_by_kind()[job.kind].function(job, Context(id="t", is_cancelled=lambda: next(answers, True)))
    assert names() == [job.source]


@pytest.mark.parametrize(("job", "make_content"), JOBS[1:], ids=KINDS[1:])
def test_a_second_run_writes_the_same_bytes(
    job: Any, make_content: Callable[[], bytes], configured: Path, context: Context
) -> None:
    """A task that is delivered twice leaves the target as its first run wrote it."""
    (configured / job.source).write_bytes(make_content())
    trees = []
    for _ in range(2):
        handlers_by_kind()[job.kind].function(job, context)
        trees.append({path: path.read_bytes() for path in configured.rglob("*") if path.is_file()})
    assert trees[0] == trees[1]
    assert len(trees[0]) > 1


@pytest.mark.parametrize(("job", "make_content"), JOBS[1:], ids=KINDS[1:])
def test_no_handler_overwrites_its_source(
    job: Any, make_content: Callable[[], bytes], configured: Path, context: Context
) -> None:
    """Two spellings of one file are one file, and its content remains. CSV and PDF were replaced."""
    path = configured / job.source
    content = make_content()
    path.write_bytes(content)
    with pytest.raises(BadInput, match="choose another target"):
        handlers_by_kind()[job.kind].function(job.model_copy(update={"target": str(path)}), context)
    assert path.read_bytes() == content


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
@pytest.mark.parametrize(("job", "make_content"), JOBS[1:], ids=KINDS[1:])
def test_a_full_disk_leaves_nothing(
    job: Any, make_content: Callable[[], bytes], configured: Path, small_disk: Path, context: Context
) -> None:
    """The task is retried later, and no part of its output remains."""
    (configured / job.source).write_bytes(make_content())
    with pytest.raises(RetryLater, match="no room left"):
        handlers_by_kind()[job.kind].function(
            job.model_copy(update={"target": f"disk/a/{job.target}"}), context
        )
    assert list(small_disk.iterdir()) == []
