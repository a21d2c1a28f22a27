"""Read a PDF's pages with PDFium, as a program of its own: `pdf.py` starts it and bounds its memory and time.

PDFium ends its process when memory runs out, and is a large C++ program that reads strangers' files. The PDF
is the standard input, as far as its end mark. Written are the number of pages (4 bytes) and the flags of the
document (1). For each page follow the length of its text in bytes (4) and in characters (4), and the text:
first the text of the page, then the filled fields and the comments on it. The process exits with one of the
codes below.
"""

import ctypes
import io
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from xml.etree import ElementTree

COUNT = struct.Struct(">IB")
PAGE = struct.Struct(">II")
#: The flags of a document: what it has beside its pages.
HAS_FORM, HAS_XFA = 1, 2
ENCRYPTED, DAMAGED, DAMAGED_PAGE, NO_PDFIUM, UNSUPPORTED_SECURITY = 3, 4, 5, 6, 7
MEMORY_BYTES = 1024 * 1024 * 1024
#: For a child whose parent was killed; otherwise the task's own limit ends it.
_PROCESSOR_SECONDS = 3600
_PARENT_DEATH_SIGNAL = 1
_PASSWORD_ERROR, _SECURITY_ERROR = 4, 5
_HIDDEN, _NOT_SHOWN = 1 << 1, 1 << 5
_IS_PASSWORD = 1 << 13
_NAME_BYTES = 64


def main() -> int:
    """Write all pages. The arguments are the descriptor to read the password from, and the PDF's length."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    try:
        import pypdfium2
    except ImportError:
        return NO_PDFIUM
    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        password = pipe.read().decode() or None
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_PROCESSOR_SECONDS, _PROCESSOR_SECONDS))
    try:
        document = pypdfium2.PdfDocument(_Beginning(sys.stdin.buffer, int(sys.argv[2])), password=password)
    except pypdfium2.PdfiumError as error:
        codes = {_PASSWORD_ERROR: ENCRYPTED, _SECURITY_ERROR: UNSUPPORTED_SECURITY}
        return codes.get(error.err_code, DAMAGED)
    pages = len(document)
    form = _Form(document)
    sys.stdout.buffer.write(COUNT.pack(pages, form.flags))
    sys.stdout.buffer.flush()
    for at in range(pages):
        try:
            with closing(document[at]) as page, closing(page.get_textpage()) as textpage:
                parts = [textpage.get_text_range(), *form.lines(page)]
        except pypdfium2.PdfiumError:
            return DAMAGED_PAGE
        if at + 1 == pages:
            parts += form.xfa_lines()
        text = "\n".join(part for part in map(clean_text, parts) if part)
        content = text.encode("utf-8", "replace")
        sys.stdout.buffer.write(PAGE.pack(len(content), len(text)) + content)
        sys.stdout.buffer.flush()
    return 0


def clean_text(text: str) -> str:
    """Return a page's text with plain line ends, and with the hyphens at line ends that are on the page."""
    # PDFium has U+FFFE for a hyphen that ends a line, and joins the lines.
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufffe", "-")
    return text.replace("\0", "").replace("\f", "\n")


class _Beginning(io.RawIOBase):
    """The first bytes of a file: PDFium looks for its last mark near the end."""

    def __init__(self, file: Any, length: int) -> None:
        super().__init__()
        self._file, self._length = file, length

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = self._length + offset, os.SEEK_SET
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        left = max(0, self._length - self.tell())
        return int(self._file.readinto(view[:left]))


class _Form:
    """The fields and comments of a document, which are no part of its pages' own text."""

    def __init__(self, document: Any) -> None:
        import pypdfium2.raw as pdfium

        self._pdfium, self._document = pdfium, document
        self._type, self._is_filled = document.get_formtype(), False
        document.init_forms()
        self._form = document.formenv

    @property
    def flags(self) -> int:
        """Return the flags of the document for `COUNT`."""
        return (HAS_FORM if self._form else 0) | (
            HAS_XFA if self._type == self._pdfium.FORMTYPE_XFA_FULL else 0
        )

    def lines(self, page: Any) -> Iterator[str]:
        """Yield a line for each filled field, and each comment, in the order of the page."""
        pdfium = self._pdfium
        for at in range(pdfium.FPDFPage_GetAnnotCount(page)):
            annotation = pdfium.FPDFPage_GetAnnot(page, at)
            if not annotation:
                continue
            try:
                if not pdfium.FPDFAnnot_GetFlags(annotation) & (_HIDDEN | _NOT_SHOWN):
                    yield self._annotation_line(annotation)
            finally:
                pdfium.FPDFPage_CloseAnnot(annotation)

    def _annotation_line(self, annotation: Any) -> str:
        """Return the line for a filled field or a comment. It is empty for any other annotation."""
        pdfium = self._pdfium
        subtype = pdfium.FPDFAnnot_GetSubtype(annotation)
        if subtype in (pdfium.FPDF_ANNOT_LINK, pdfium.FPDF_ANNOT_POPUP):
            return ""
        if subtype != pdfium.FPDF_ANNOT_WIDGET:
            return self._read_string(pdfium.FPDFAnnot_GetStringValue, annotation, b"Contents")
        value = self._field_value(annotation) if self._form else ""
        self._is_filled = self._is_filled or bool(value)
        return f"{self._field_name(annotation)}: {value}" if value else ""

    def _field_name(self, annotation: Any) -> str:
        """Return the name of a field for people, or else that in its form."""
        pdfium = self._pdfium
        for get in (pdfium.FPDFAnnot_GetFormFieldAlternateName, pdfium.FPDFAnnot_GetFormFieldName):
            if name := self._read_string(get, self._form, annotation):
                return name
        return "field"

    def _field_value(self, annotation: Any) -> str:
        """Return the value of a field as a person would see it.

        It is empty for an unchecked box, a password and a type of field that shows no value.
        """
        pdfium, field = self._pdfium, (self._form, annotation)
        match pdfium.FPDFAnnot_GetFormFieldType(*field):
            case pdfium.FPDF_FORMFIELD_CHECKBOX | pdfium.FPDF_FORMFIELD_RADIOBUTTON:
                if not pdfium.FPDFAnnot_IsChecked(*field):
                    return ""
                return self._read_string(pdfium.FPDFAnnot_GetFormFieldExportValue, *field) or "Yes"
            case pdfium.FPDF_FORMFIELD_COMBOBOX | pdfium.FPDF_FORMFIELD_LISTBOX:
                options = [
                    self._read_string(pdfium.FPDFAnnot_GetOptionLabel, *field, at)
                    for at in range(max(0, pdfium.FPDFAnnot_GetOptionCount(*field)))
                    if pdfium.FPDFAnnot_IsOptionSelected(*field, at)
                ]
                return ", ".join(options) or self._read_string(pdfium.FPDFAnnot_GetFormFieldValue, *field)
            case pdfium.FPDF_FORMFIELD_TEXTFIELD:
                is_secret = pdfium.FPDFAnnot_GetFormFieldFlags(*field) & _IS_PASSWORD
                return "" if is_secret else self._read_string(pdfium.FPDFAnnot_GetFormFieldValue, *field)
        return ""

    def xfa_lines(self) -> Iterator[str]:
        """Yield a line for each value of an XFA form whose pages only Adobe's reader makes."""
        pdfium = self._pdfium
        with_data = (pdfium.FORMTYPE_XFA_FULL, pdfium.FORMTYPE_XFA_FOREGROUND)
        if self._type not in with_data or self._is_filled:
            return
        for at in range(pdfium.FPDF_GetXFAPacketCount(self._document)):
            name = ctypes.create_string_buffer(_NAME_BYTES)
            pdfium.FPDF_GetXFAPacketName(self._document, at, name, _NAME_BYTES)
            if name.value == b"datasets":
                yield from _xml_leaf_lines(self._read_packet(at))

    def _read_packet(self, at: int) -> bytes:
        """Return the content of an XFA packet, by its number."""
        length = ctypes.c_ulong()
        self._pdfium.FPDF_GetXFAPacketContent(self._document, at, None, 0, ctypes.byref(length))
        buffer = ctypes.create_string_buffer(length.value)
        self._pdfium.FPDF_GetXFAPacketContent(self._document, at, buffer, length.value, ctypes.byref(length))
        return buffer.raw

    def _read_string(self, get: Callable[..., int], *arguments: Any) -> str:
        """Return the text that a function of PDFium writes to a buffer, called first for its length."""
        length = get(*arguments, None, 0)
        buffer = ctypes.create_string_buffer(length)
        get(*arguments, ctypes.cast(buffer, ctypes.POINTER(self._pdfium.FPDF_WCHAR)), length)
        return buffer.raw.decode("utf-16-le", "replace").rstrip("\0").strip()


def _xml_leaf_lines(data: bytes) -> Iterator[str]:
    """Yield `tag: text` for each XML element that has text and no child.

    Yield nothing if the XML is damaged.
    """
    try:
        elements = ElementTree.fromstring(data).iter()
    except ElementTree.ParseError:
        return
    for element in elements:
        if not len(element) and (text := (element.text or "").strip()):
            yield f"{element.tag.rpartition('}')[2]}: {text}"


if __name__ == "__main__":
    sys.exit(main())
