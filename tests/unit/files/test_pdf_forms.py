"""The text of a PDF has the values of its fields and its comments, too."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
from millpond.tasks.files.contract import PdfText, TextResult
from millpond.tasks.files.pdf import extract_text
from millpond.tasks.files.storage import Storage

Text = Callable[..., tuple[TextResult, str]]


@pytest.fixture
def text(store: Storage, root: Path, context: Context) -> Text:
    """Return a function that returns the result and the text of a PDF."""

    def read(content: bytes, **options: Any) -> tuple[TextResult, str]:
        (root / "in.pdf").write_bytes(content)
        result = extract_text(PdfText(source="in.pdf", target="out.txt", **options), store, context)
        return result, (root / "out.txt").read_text()

    return read


def handmade(*objects: str, root: str = "", page: str = "", drawn: str = "") -> bytes:
    """Return a PDF of one page whose further objects begin at number 6."""
    all_objects = [
        f"<</Type/Catalog/Pages 2 0 R{root}>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        (
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R"
            f"/Resources<</Font<</F 5 0 R>>>>{page}>>"
        ),
        f"<</Length {len(drawn)}>>stream\n{drawn}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        *objects,
    ]
    body, offsets = b"%PDF-1.7\n", []
    for number, each in enumerate(all_objects, 1):
        offsets.append(b"%010d 00000 n \n" % len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, each.encode("latin-1"))
    size = len(all_objects) + 1
    table = b"xref\n0 %d\n0000000000 65535 f \n" % size + b"".join(offsets)
    return body + table + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, len(body))


def form(*fields: str, **parts: str) -> bytes:
    """Return a PDF of one page with these fields, each a widget of its own."""
    numbers = " ".join(f"{at} 0 R" for at in range(6, 6 + len(fields)))
    widgets = [f"<</Type/Annot/Subtype/Widget/P 3 0 R/Rect[10 10 200 30]{each}>>" for each in fields]
    root = f"/AcroForm<</Fields[{numbers}]/DA(/F 12 Tf)/DR<</Font<</F 5 0 R>>>>>>"
    return handmade(*widgets, root=root, page=f"/Annots[{numbers}]", **parts)


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("/FT/Tx/T(name)/V(Ada Example)", "name: Ada Example"),
        ("/FT/Tx/T(name)/V<FEFF0141006F0064017A>", "name: Łodź"),
        ("/FT/Tx/Ff 4096/T(address)/V(Street 1\\rTown)", "address: Street 1\nTown"),
        ("/FT/Tx/T(f1)/TU(Your name)/V(Ada)", "Your name: Ada"),
        ("/FT/Tx/T(comb)/Ff 16777216/MaxLen 4/V(1234)", "comb: 1234"),
        ("/FT/Tx/T(pin)/Ff 8192/V(1234)", ""),
        ("/FT/Tx/T(empty)/V()", ""),
        ("/FT/Tx/T(hidden)/F 2/V(x)", ""),
        ("/FT/Btn/T(agreed)/V/On/AS/On/AP<</N<</On 4 0 R/Off 4 0 R>>>>", "agreed: On"),
        ("/FT/Btn/T(agreed)/V/Off/AS/Off/AP<</N<</On 4 0 R/Off 4 0 R>>>>", ""),
        ("/FT/Btn/Ff 65536/T(send)/MK<</CA(Send)>>", ""),
        ("/FT/Ch/Ff 131072/T(colour)/Opt[(red)(blue)]/V(blue)", "colour: blue"),
        ("/FT/Ch/Ff 131072/T(colour)/Opt[[(r)(red)][(b)(blue)]]/V(b)", "colour: blue"),
        ("/FT/Ch/Ff 393216/T(colour)/Opt[(red)]/V(another)", "colour: another"),
        ("/FT/Ch/Ff 2097152/T(sizes)/Opt[(S)(M)(L)]/V[(S)(L)]", "sizes: S, L"),
        ("/FT/Ch/T(sizes)/Opt[(S)(M)]/V(M)", "sizes: M"),
        ("/FT/Sig/T(signature)", ""),
    ],
)
def test_every_kind_of_field_gives_its_value(text: Text, field: str, line: str) -> None:
    """Fields of a form are in the text: an order form came without its items."""
    drawn = "BT /F 12 Tf 50 700 Td (Order) Tj ET"
    result, found = text(form(field, drawn=drawn))
    assert found == (f"Order\n{line}" if line else "Order")
    assert result.note is None
    assert result.characters == len(found)
    if line:
        assert text(form(field)) == (
            result.model_copy(update={"bytes": len(line.encode()), "characters": len(line)}),
            line,
        )


def test_of_radio_buttons_the_chosen_one_is_told(text: Text) -> None:
    """Of a group of radio buttons, the text has the chosen one."""
    buttons = "/FT/Btn/Ff 49152/Parent 8 0 R/AP<</N<</{0} 4 0 R/Off 4 0 R>>>>/AS/{1}"
    widgets = [
        f"<</Type/Annot/Subtype/Widget/P 3 0 R/Rect[10 10 20 20]{buttons.format(*each)}>>"
        for each in (("red", "Off"), ("blue", "blue"))
    ]
    group = "<</FT/Btn/Ff 49152/T(colour)/V/blue/Kids[6 0 R 7 0 R]>>"
    content = handmade(*widgets, group, root="/AcroForm<</Fields[8 0 R]>>", page="/Annots[6 0 R 7 0 R]")
    assert text(content)[1] == "colour: blue"


def test_a_value_may_stand_with_the_field_and_not_its_widget(text: Text) -> None:
    """A field with two widgets has its value once, above them."""
    widget = "<</Type/Annot/Subtype/Widget/P 3 0 R/Parent 7 0 R/Rect[10 10 200 30]>>"
    content = handmade(
        widget,
        "<</FT/Tx/T(who)/V(Ada)/Kids[6 0 R]>>",
        root="/AcroForm<</Fields[7 0 R]>>",
        page="/Annots[6 0 R]",
    )
    assert text(content)[1] == "who: Ada"


def test_a_form_without_any_text_is_no_scan(text: Text) -> None:
    """The note about a form without text does not recommend OCR."""
    result, found = text(form("/FT/Tx/T(a)"))
    assert (found, result.note) == ("", "no page has text, and no field of the form is filled")


@pytest.mark.parametrize(
    ("comment", "line"),
    [
        ("/Subtype/FreeText/Contents(Typed on the page)/DA(/F 12 Tf)", "Typed on the page"),
        ("/Subtype/Text/Contents(A note)", "A note"),
        ("/Subtype/Highlight/QuadPoints[0 0 1 0 0 1 1 1]/Contents(Check this)", "Check this"),
        ("/Subtype/Stamp/Contents(Approved)", "Approved"),
        ("/Subtype/Link/Contents(somewhere)", ""),
        ("/Subtype/Popup/Contents(A note)/Parent 6 0 R", ""),
        ("/Subtype/Text/F 2/Contents(hidden)", ""),
        ("/Subtype/Square", ""),
    ],
)
def test_comments_are_read(text: Text, comment: str, line: str) -> None:
    """Text written on a page with a reader is part of it, and a note's window is not a second one."""
    content = handmade(f"<</Type/Annot/Rect[10 10 200 30]{comment}>>", page="/Annots[6 0 R]")
    assert text(content)[1] == line


def test_an_xfa_form_gives_its_data(text: Text) -> None:
    """The text of an XFA form has its data, although only Adobe's reader can make its pages."""
    data = (
        '<xfa:datasets xmlns:xfa="http://www.xfa.org/schema/xfa-data/1.0/"><xfa:data><form>'
        "<name>Ada Example</name><empty/><item><amount>1234.50</amount></item>"
        "</form></xfa:data></xfa:datasets>"
    )
    template = (
        '<template xmlns="http://www.xfa.org/schema/xfa-template/2.8/"><subform name="form"/></template>'
    )
    streams = [f"<</Length {len(each)}>>stream\n{each}\nendstream" for each in (template, data)]
    root = "/NeedsRendering true/AcroForm<</Fields[]/XFA[(template)6 0 R(datasets)7 0 R]>>"
    drawn = "BT /F 12 Tf 50 700 Td (Please wait) Tj ET"
    result, found = text(handmade(*streams, root=root, drawn=drawn))
    assert found == "Please wait\nname: Ada Example\namount: 1234.50"
    assert result.note is not None
    assert "XFA form" in result.note
    broken = [f"<</Length {len(each)}>>stream\n{each}\nendstream" for each in (template, data[:-20])]
    assert text(handmade(*broken, root=root, drawn=drawn))[1] == "Please wait"


@pytest.mark.parametrize(
    ("encoding", "codec", "line"),
    [
        ("shift_jis", "shift_jis", "\n名: 山田"),
        ("EUC-JP", "euc-jp", "\n名: 山田"),
        ("x-unknown", "utf-8", ""),
        ("hex", "utf-8", ""),
        ("shift_jis", "utf-8", ""),
    ],
)
def test_the_data_of_an_xfa_form_may_be_in_any_encoding(
    text: Text, encoding: str, codec: str, line: str
) -> None:
    """Data in an encoding that Expat cannot read is decoded, or left out; the PDF was called a bomb."""
    data = f"<?xml version='1.0' encoding='{encoding}'?><data><名>山田</名></data>"
    data = data.encode(codec).decode("latin-1")
    streams = [f"<</Length {len(each)}>>stream\n{each}\nendstream" for each in ("<template/>", data)]
    root = "/NeedsRendering true/AcroForm<</Fields[]/XFA[(template)6 0 R(datasets)7 0 R]>>"
    assert text(handmade(*streams, root=root, drawn="BT /F 12 Tf 50 700 Td (a) Tj ET"))[1] == f"a{line}"


def simple(*pages: str, **options: Any) -> bytes:
    """Return a PDF of pages of one line."""
    buffer = io.BytesIO()
    canvas = Canvas(buffer, **options)
    for page in pages:
        canvas.drawString(72, 700, page)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


@pytest.mark.parametrize(
    "behind",
    [
        bytes(5_000),
        bytes(60_000),
        b"\r\n" * 20_000,
        b"<!-- a web server's comment -->" * 900,
        b"\xff" * 900_000,
    ],
    ids=["5k zeros", "60k zeros", "line ends", "HTML", "900k"],
)
def test_anything_may_lie_behind_the_end_mark(text: Text, behind: bytes) -> None:
    """Data after the end mark is ignored, in documents with and without a password."""
    assert text(simple("Hello", "world") + behind)[1] == "Hello\fworld"
    locked = simple("Hello", encrypt=StandardEncryption("sesame", strength=128))
    assert text(locked + behind, password="sesame")[1] == "Hello"


@pytest.mark.parametrize("before", [b"\n", b"junk" * 100])
def test_a_little_may_lie_before_the_first_mark(text: Text, before: bytes) -> None:
    """The first mark may be anywhere in the first kilobyte, as for other readers."""
    assert text(before + simple("Hello"))[1] == "Hello"


def test_an_earlier_end_mark_is_not_the_end(store: Storage, root: Path, context: Context) -> None:
    """A file that was changed, or made for the web, has several; cut off between two it is not whole."""
    first = handmade("<</Type/Annot/Subtype/Text/Rect[1 1 9 9]/Contents(first)>>", page="/Annots[6 0 R]")
    at = len(first)
    update = b"6 0 obj\n<</Type/Annot/Subtype/Text/Rect[1 1 9 9]/Contents(second)>>\nendobj\n"
    old = first.rindex(b"xref\n0 ")
    table = b"xref\n6 1\n%010d 00000 n \ntrailer<</Size 7/Root 1 0 R/Prev %d>>\nstartxref\n%d\n%%%%EOF\n" % (
        at,
        old,
        at + len(update),
    )
    job = PdfText(source="in.pdf", target="out.txt")
    (root / "in.pdf").write_bytes(first + update + table)
    extract_text(job, store, context)
    assert (root / "out.txt").read_text() == "second"
    (root / "out.txt").unlink()
    for cut in (at + len(update) - 3, at + len(update) + 10, len(first + update + table) - 8):
        (root / "in.pdf").write_bytes((first + update + table)[:cut])
        with pytest.raises(BadInput, match="it was cut off"):
            extract_text(job, store, context)
    assert [path.name for path in root.iterdir()] == ["in.pdf"]


@pytest.mark.parametrize("strength", [40, 128])
def test_every_standard_encryption_is_opened(text: Text, strength: int) -> None:
    """RC4 and AES, with the user's password, with the owner's, and with an empty one."""
    locked = simple("Hello", encrypt=StandardEncryption("user", ownerPassword="owner", strength=strength))
    assert text(locked, password="user")[1] == text(locked, password="owner")[1] == "Hello"
    assert text(simple("Hello", encrypt=StandardEncryption("", "owner", strength=strength)))[1] == "Hello"


def test_another_kind_of_encryption_is_not_called_damage(
    store: Storage, root: Path, context: Context
) -> None:
    """The error for an unknown encryption does not call the document damaged."""
    content = handmade("<</Filter/Vendor.Handler/V 4/R 4>>", drawn="BT ET")
    content = content.replace(b"/Root 1 0 R", b"/Root 1 0 R/Encrypt 6 0 R/ID[<00><00>]")
    (root / "in.pdf").write_bytes(content)
    with pytest.raises(BadInput, match="encrypted in a way that is not supported here") as caught:
        extract_text(PdfText(source="in.pdf", target="out.txt"), store, context)
    assert "damaged" not in str(caught.value)
