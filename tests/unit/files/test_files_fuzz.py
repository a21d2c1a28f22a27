"""Good files that are changed at random raise only Millpond's own errors, and leave nothing on the disk."""

import bz2
import gzip
import lzma
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard
from archive_makers import FILES, make_tar, make_zip
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from reportlab.pdfgen.canvas import Canvas

from millpond.tasks.context import Context
from millpond.tasks.errors import FinalError
from millpond.tasks.files.archives import unpack
from millpond.tasks.files.contract import PdfText, ToParquet, Unpack
from millpond.tasks.files.pdf import extract_text
from millpond.tasks.files.storage import Storage
from millpond.tasks.files.tables import to_parquet
from millpond.tasks.settings import Files

_SMALL = {name: content and content[:2_000] for name, content in FILES.items()}
ARCHIVES = [
    make_tar(*_SMALL.items()),
    make_tar(*_SMALL.items(), form=tarfile.GNU_FORMAT),
    make_zip(*_SMALL.items()),
    make_zip(*_SMALL.items(), method=zipfile.ZIP_BZIP2),
    *(
        pack(make_tar(*_SMALL.items()))
        for pack in (gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress)
    ),
]
CSV = 'a,b,"c d"\n1,2.5,x\n-7,,"y, ""z""\nnew"\n2024-01-01,true,é\n'.encode()
JSONL = '{"a":1,"b":[1,{"c":null}],"d":"é\\u00e9"}\n{"a":2.5,"e":{"f":[[]]}}\n\n{"a":"x"}\n'.encode()
LIMITS = Files(max_entries=500, max_unpacked_bytes=5_000_000)

#: Bytes that parsers trip over.
_TOKENS = [b'"', b"\n", b"\r", b",", b"\\", b"{", b"}", b"[", b"]", b":", b"\0", b"\xff", b"../", b"/", b"PK"]
_patches = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 12),
        st.one_of(st.binary(max_size=8), st.sampled_from(_TOKENS)),
    ),
    max_size=6,
)
_quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def patched(content: bytes, patches: list[tuple[float, int, bytes]]) -> bytes:
    """Return the content with some of its bytes replaced by others."""
    for where, removed, added in patches:
        at = int(where * len(content))
        content = content[:at] + added + content[at + removed :]
    return content


def check(content: bytes, name: str, body: Callable[[Any, Storage, Context], Any], job: Any) -> None:
    """Run a handler: it succeeds, or raises an error of one line and leaves nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        root.mkdir()
        (root / name).write_bytes(content)
        store = Storage(roots=(str(root),), limits=LIMITS)
        message = None
        try:
            body(job, store, Context())
        except FinalError as error:
            message = str(error)
        assert message is None or message.isprintable()
        left = [name, "out"] if message is None else [name]
        assert sorted(path.name for path in root.iterdir()) == left
        assert [path.name for path in Path(folder).iterdir()] == ["root"]
        assert not any(path.is_symlink() or path.is_fifo() for path in root.rglob("*"))


@_quick
@given(st.sampled_from(ARCHIVES), _patches)
def test_archives(content: bytes, patches: list[tuple[float, int, bytes]]) -> None:
    """A changed archive is unpacked below its target and within the limits, or is refused."""
    check(patched(content, patches), "in", unpack, Unpack(source="in", target="out"))


@_quick
@given(_patches, st.sampled_from(["utf-8", "utf-16", "cp1252", "utf-7", "shift_jis"]))
@example([], "utf-8")
def test_csv(patches: list[tuple[float, int, bytes]], encoding: str) -> None:
    """A changed CSV file is converted or refused."""
    job = ToParquet(source="in.csv", target="out", encoding=encoding)
    check(patched(CSV * 3, patches), "in.csv", to_parquet, job)


@_quick
@given(_patches)
@example([])
def test_jsonl(patches: list[tuple[float, int, bytes]]) -> None:
    """A changed JSONL file is converted or refused."""
    check(patched(JSONL * 3, patches), "in.jsonl", to_parquet, ToParquet(source="in.jsonl", target="out"))


@settings(parent=_quick, max_examples=15)
@given(_patches)
def test_pdfs(patches: list[tuple[float, int, bytes]]) -> None:
    """A changed PDF is read or refused."""
    canvas = Canvas("", invariant=True, pageCompression=1)
    for page in range(3):
        canvas.drawString(72, 700, f"page {page}")
        canvas.showPage()
    job = PdfText(source="in.pdf", target="out")
    check(patched(canvas.getpdfdata(), patches), "in.pdf", extract_text, job)
