"""A file body that is cancelled while it works stops at its next piece, and leaves nothing behind."""

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from packed import tar
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

import millpond.tasks.files.task  # noqa: F401 - declares the bodies
from millpond.tasks.context import Context
from millpond.tasks.errors import Cancelled
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
from millpond.tasks.settings import settings

MEGABYTE = 1024 * 1024


@pytest.fixture
def configured(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the root that the settings name for the length of a test."""
    monkeypatch.setenv("MILLPOND_FILES__ROOTS", json.dumps([str(root)]))
    settings.cache_clear()
    yield root
    settings.cache_clear()


def _pdf() -> bytes:
    made = BytesIO()
    canvas = Canvas(made)
    for page in range(5):
        canvas.drawString(100, 100, f"page {page}")
        canvas.showPage()
    canvas.save()
    return made.getvalue()


def _picture() -> bytes:
    made = BytesIO()
    Image.effect_noise((3_000, 2_000), 40).convert("RGB").save(made, "JPEG")
    return made.getvalue()


WORK: list[tuple[Any, Callable[[], bytes]]] = [
    (Checksum(source="in"), lambda: bytes(4 * MEGABYTE)),
    (Compress(source="in", target="out"), lambda: bytes(4 * MEGABYTE)),
    (ToParquet(source="in.csv", target="out"), lambda: b"a,b\n" + b"1,2\n" * MEGABYTE * 4),
    (PdfText(source="in.pdf", target="out"), _pdf),
    (Unpack(source="in.tar", target="out"), lambda: tar(*((f"e{n}", bytes(MEGABYTE)) for n in range(5)))),
    (Thumbnail(source="in.jpg", target="out.jpg", width=1_000, height=1_000), _picture),
    (ConvertImage(source="in.jpg", target="out.png"), _picture),
]


@pytest.mark.parametrize(("job", "made"), WORK, ids=[job.kind for job, _ in WORK])
def test_a_cancelled_body_stops_between_two_pieces(
    job: Any, made: Callable[[], bytes], configured: Path, names: Callable[[], list[str]]
) -> None:
    """Cancelled after its first look, it stops at its second, and no target is left, not even in part."""
    (configured / job.source).write_bytes(made())
    looks = iter([False])
    with pytest.raises(Cancelled, match="task t was cancelled while it ran"):
        handlers_by_kind()[job.kind].function(job, Context(id="t", is_cancelled=lambda: next(looks, True)))
    assert names() == [job.source]
