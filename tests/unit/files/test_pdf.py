"""The text of a PDF in any script is written page by page, by a child process with limited memory."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import reportlab
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, Cancelled, FinalError, TooLarge
from millpond.tasks.files import pdf_pages
from millpond.tasks.files.contract import PdfText
from millpond.tasks.files.pdf import extract_text
from millpond.tasks.files.storage import Storage
from millpond.tasks.settings import Files

JOB = PdfText(source="in.pdf", target="out.txt")
Refuse = Callable[..., str]


def document(*pages: str, font: str = "Helvetica", password: str | None = None) -> bytes:
    """Return a PDF of pages of lines."""
    buffer = io.BytesIO()
    canvas = Canvas(buffer, encrypt=StandardEncryption(password, strength=128) if password else None)
    for page in pages:
        canvas.setFont(font, 12)
        for number, line in enumerate(page.splitlines()):
            canvas.drawString(72, 720 - 20 * number, line)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def handmade(content: bytes, *, filters: bytes = b"", count: int = 1) -> bytes:
    """Return a PDF of one page, written out by hand, that claims `count` pages."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count %d>>" % count,
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Length %d%s>>stream\n%s\nendstream" % (len(content), filters, content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(b"%010d 00000 n \n" % len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"xref\n0 6\n0000000000 65535 f \n" + b"".join(places) + b"trailer<</Size 6/Root 1 0 R>>\n"
    return body + table + b"startxref\n%d\n%%%%EOF\n" % len(body)


@pytest.fixture
def refused(root: Path, context: Context) -> Refuse:
    """Return a function that reads a bad document, and returns the error's message. No child may be left."""

    def refuse(
        content: bytes, *, error: type[Exception] = BadInput, password: str | None = None, **limits: int
    ) -> str:
        (root / "in.pdf").write_bytes(content)
        before = psutil.Process().children()
        store = Storage(roots=(str(root),), limits=Files.model_validate(limits))
        job = PdfText(source="in.pdf", target="a/out.txt", password=password)
        with pytest.raises(error) as caught:
            extract_text(job, store, context)
        assert [path.name for path in root.iterdir()] == ["in.pdf"]
        assert psutil.Process().children() == before
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refuse


def test_pages_are_parted_by_form_feeds(store: Storage, root: Path, context: Context) -> None:
    """The text has the lines of the pages, and the result counts both."""
    (root / "in.pdf").write_bytes(document("one\ntwo", "three"))
    result = extract_text(JOB, store, context)
    assert (root / "out.txt").read_bytes() == b"one\ntwo\fthree"
    assert (result.pages, result.characters, result.bytes, result.note) == (2, 12, 13, None)


def test_every_script_comes_out(store: Storage, root: Path, context: Context) -> None:
    """Text in an embedded font, and Japanese text, is written as it was drawn."""
    pdfmetrics.registerFont(TTFont("Vera", Path(reportlab.__file__).parent / "fonts" / "Vera.ttf"))
    pdfmetrics.registerFont(UnicodeCIDFont("HeiseiMin-W3"))
    for font, text in (("Vera", "Größe: 5 €, naïve façade, Łódka"), ("HeiseiMin-W3", "日本語のテキスト")):
        (root / "in.pdf").write_bytes(document(text, font=font))
        extract_text(JOB, store, context)
        assert (root / "out.txt").read_text() == text


def test_a_hyphen_at_a_line_end_stays() -> None:
    """The character that PDFium has for a hyphen at a line end becomes a hyphen."""
    assert pdf_pages.clean_text("col\ufffeumn\r\nnext\0\fend") == "col-umn\nnext\nend"


def test_pages_without_text_are_a_note_not_an_error(store: Storage, root: Path, context: Context) -> None:
    """The result for a scanned document has a note that recommends OCR."""
    (root / "in.pdf").write_bytes(document("", " "))
    result = extract_text(JOB, store, context)
    assert (root / "out.txt").read_text().strip() == ""
    assert (result.pages, result.note) == (2, "no page has a text layer: scanned pages need OCR first")
    (root / "in.pdf").write_bytes(document("text", "", "text"))
    assert extract_text(JOB, store, context).note == "1 of 3 pages have no text"


def test_an_encrypted_document_needs_its_password(store: Storage, context: Context, refused: Refuse) -> None:
    """Without a password, and with a wrong one, the message asks for the password."""
    content = document("secret", password="sesame")
    assert "is encrypted: give its password" in refused(content)
    assert "is encrypted: the password is wrong" in refused(content, password="open")
    job = PdfText(source="in.pdf", target="out.txt", password="sesame")
    assert extract_text(job, store, context).characters == 6
    assert "sesame" not in str(job.redacted())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is no PDF"),
        (b"PK\x03\x04", "is no PDF: it looks like zip"),
        (document("text")[:-200], "ends without a PDF's end mark: it was cut off"),
        (b"%PDF-1.7\n%%EOF\n", "cannot be read: the PDF is damaged"),
        (handmade(b"", count=3), "page 2, cannot be read: the PDF is damaged"),
    ],
)
def test_what_is_no_whole_pdf_is_refused(refused: Refuse, content: bytes, message: str) -> None:
    """The error says whether a file is no PDF, truncated or damaged."""
    assert message in refused(content)


def test_a_bomb_is_stopped_at_its_memory(
    refused: Refuse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A page that takes more than the child's memory is refused."""
    small = tmp_path / "pdf_pages.py"
    source = Path(pdf_pages.__file__).read_text()
    small.write_text(source.replace("MEMORY_BYTES = 1024 *", "MEMORY_BYTES = 256 *"))
    monkeypatch.setattr(pdf_pages, "__file__", str(small))
    bomb = zlib.compress(b" " * 300_000_000, 9)
    message = refused(handmade(bomb, filters=b"/Filter/FlateDecode"), error=TooLarge)
    assert "page 1, takes over" in message
    assert "bomb" in message


def test_a_page_that_ends_pdfium_is_named(
    refused: Refuse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If PDFium ends its process, the error names the page."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    crashing = tmp_path / "pdf_pages.py"
    source = Path(pdf_pages.__file__).read_text()
    for at in (0, 1):
        crashing.write_text(
            source.replace(
                "with closing(document[index])",
                f"index == {at} and os.abort()\n            with closing(document[index])",
            )
        )
        monkeypatch.setattr(pdf_pages, "__file__", str(crashing))
        assert f"page {at + 1}, takes over" in refused(document("a", "b"), error=TooLarge)


@pytest.mark.parametrize(
    ("raised", "error", "reason"),
    [
        ("RuntimeError", FinalError, "page 2, cannot be read: an unexpected error"),
        ("MemoryError", TooLarge, "page 2, takes over"),
    ],
)
def test_an_unexpected_error_of_the_child_is_no_bomb(
    refused: Refuse,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    raised: str,
    error: type[FinalError],
    reason: str,
) -> None:
    """An error in the child's own code does not read as a fault of the file; that of no memory does."""
    failing = tmp_path / "pdf_pages.py"
    source = Path(pdf_pages.__file__).read_text()
    failing.write_text(
        source.replace("if index + 1 == pages:", f"if index == 1:\n            raise {raised}")
    )
    monkeypatch.setattr(pdf_pages, "__file__", str(failing))
    message = refused(document("a", "b"), error=error)
    assert reason in message
    assert ("bomb" in message) == (error is TooLarge)


def test_pages_and_text_are_bounded(refused: Refuse) -> None:
    """The number of pages and the length of the text have limits."""
    assert "3 pages, over 2" in refused(document("a", "b", "c"), error=TooLarge, max_entries=2)
    assert "max_unpacked_bytes" in refused(
        document("a" * 60, "b" * 60), error=TooLarge, max_unpacked_bytes=100
    )


def test_a_missing_library_says_what_to_install(
    refused: Refuse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error of a worker without PDFium says what to install."""
    without = tmp_path / "pdf_pages.py"
    without.write_text(
        Path(pdf_pages.__file__).read_text().replace("import pypdfium2", "import no_pypdfium2")
    )
    monkeypatch.setattr(pdf_pages, "__file__", str(without))
    assert "[files]" in refused(document("a"), error=FinalError)


def test_cancelling_stops_and_leaves_nothing(store: Storage, root: Path) -> None:
    """A cancelled task ends its child process, too. Progress is in pages."""
    (root / "in.pdf").write_bytes(document(*(f"page {at}" for at in range(20))))
    before = psutil.Process().children()
    seen: list[tuple[int, int | None]] = []
    with pytest.raises(Cancelled):
        extract_text(
            JOB, store, Context(is_cancelled=lambda: len(seen) > 3, report=lambda *done: seen.append(done))
        )
    assert [path.name for path in root.iterdir()] == ["in.pdf"]
    assert psutil.Process().children() == before
    extract_text(JOB, store, Context(report=lambda *done: seen.append(done)))
    assert seen[-1] == (20, 20)
