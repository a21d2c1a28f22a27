"""Read the text of a PDF's pages with PDFium. This is a program of its own, which `pdf.py` starts.

PDFium, a large C++ library, reads files of strangers here, and ends its process when memory runs out. So this
process has limits of memory and processor time. Standard input is the PDF. Standard output begins with the
number of pages (4 bytes) and the flags of the document (1 byte). For each page, the length of its text in
bytes (4 bytes) and in characters (4 bytes) follow, and then the text: that of the page itself, its filled
fields, and its comments. The process exits with 0 or one of the codes below.
"""

import ctypes
import io
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from xml.etree import ElementTree

HEADER = struct.Struct(">IB")
PAGE = struct.Struct(">II")
#: The flags of a document: it has a form, or a form that only Adobe's reader can show.
HAS_FORM, HAS_XFA = 1, 2
#: The exit codes.
ENCRYPTED, DAMAGED, DAMAGED_PAGE, NO_PDFIUM, UNSUPPORTED_SECURITY, OUT_OF_MEMORY = 3, 4, 5, 6, 7, 8
#: The exit code of Python after an unexpected error.
UNEXPECTED_ERROR = 1
MEMORY_BYTES = 1024 * 1024 * 1024
#: The limit if the parent was killed; otherwise the limit of the task ends this process.
_PROCESSOR_SECONDS = 3600
#: The option of Linux's prctl: the signal that this process gets when its parent ends.
_PR_SET_PDEATHSIG = 1
#: PDFium's codes of errors: a missing or wrong password, and an unknown encryption.
_PASSWORD_ERROR, _SECURITY_ERROR = 4, 5
#: Flags of an annotation and of a text field (ISO 32000-1, tables 165 and 228).
_HIDDEN, _NOT_SHOWN = 1 << 1, 1 << 5
_IS_PASSWORD = 1 << 13
#: The declaration of an XML document's encoding.
_XML_ENCODING = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""")
#: More than the names of all packets of an XFA form have.
_NAME_BYTES = 64


def main() -> int:
    """Write all pages, and return the exit code.

    The arguments of the program are the descriptor of a pipe with the password, and the PDF's length.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        import pypdfium2
    except ImportError:
        return NO_PDFIUM
    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        password = pipe.read().decode() or None
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_PROCESSOR_SECONDS, _PROCESSOR_SECONDS))
    try:
        document = pypdfium2.PdfDocument(_FirstBytes(sys.stdin.buffer, int(sys.argv[2])), password=password)
    except pypdfium2.PdfiumError as error:
        codes = {_PASSWORD_ERROR: ENCRYPTED, _SECURITY_ERROR: UNSUPPORTED_SECURITY}
        return codes.get(error.err_code, DAMAGED)
    pages = len(document)
    form = _Form(document)
    sys.stdout.buffer.write(HEADER.pack(pages, form.flags))
    sys.stdout.buffer.flush()
    for index in range(pages):
        try:
            with closing(document[index]) as page, closing(page.get_textpage()) as textpage:
                parts = [textpage.get_text_range(), *form.annotation_lines(page)]
        except pypdfium2.PdfiumError:
            return DAMAGED_PAGE
        if index + 1 == pages:
            parts += form.xfa_lines()
        text = "\n".join(part for part in map(clean_text, parts) if part)
        content = text.encode("utf-8", "replace")
        sys.stdout.buffer.write(PAGE.pack(len(content), len(text)) + content)
        sys.stdout.buffer.flush()
    return 0


def clean_text(text: str) -> str:
    """Return PDFium's text without NUL characters, and with a line feed for each line end and each form feed.

    PDFium joins a line that ends with a hyphen and the next one, with U+FFFE between. The hyphen is restored.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufffe", "-")
    return text.replace("\0", "").replace("\f", "\n")


class _FirstBytes(io.RawIOBase):
    """The first `length` bytes of a file. PDFium searches the last mark near the end of a file."""

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
        remaining = max(0, self._length - self.tell())
        return int(self._file.readinto(view[:remaining]))


class _Form:
    """The fields and comments of a document, which PDFium does not include in the text of a page."""

    def __init__(self, document: Any) -> None:
        import pypdfium2.raw as pdfium

        self._pdfium, self._document = pdfium, document
        self._type, self._is_filled = document.get_formtype(), False
        document.init_forms()
        self._form = document.formenv

    @property
    def flags(self) -> int:
        """The flags of the document in `HEADER`."""
        has_xfa = self._type == self._pdfium.FORMTYPE_XFA_FULL
        return (HAS_FORM if self._form else 0) | (HAS_XFA if has_xfa else 0)

    def annotation_lines(self, page: Any) -> Iterator[str]:
        """Yield a line for each visible annotation of a page: "" unless it is a filled field or a comment."""
        pdfium = self._pdfium
        for index in range(pdfium.FPDFPage_GetAnnotCount(page)):
            annotation = pdfium.FPDFPage_GetAnnot(page, index)
            if not annotation:
                continue
            try:
                if not pdfium.FPDFAnnot_GetFlags(annotation) & (_HIDDEN | _NOT_SHOWN):
                    yield self._annotation_line(annotation)
            finally:
                pdfium.FPDFPage_CloseAnnot(annotation)

    def _annotation_line(self, annotation: Any) -> str:
        """Return `name: value` for a filled field, and the text of a comment; "" for any other annotation."""
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
        """Return the name of a field for people, or else its name in the form, or else "field"."""
        pdfium = self._pdfium
        for getter in (pdfium.FPDFAnnot_GetFormFieldAlternateName, pdfium.FPDFAnnot_GetFormFieldName):
            if name := self._read_string(getter, self._form, annotation):
                return name
        return "field"

    def _field_value(self, annotation: Any) -> str:
        """Return the value of a field as a reader would see it.

        Return "" for an unchecked box, for a password, and for a field without a value, as a button.
        """
        pdfium, field = self._pdfium, (self._form, annotation)
        match pdfium.FPDFAnnot_GetFormFieldType(*field):
            case pdfium.FPDF_FORMFIELD_CHECKBOX | pdfium.FPDF_FORMFIELD_RADIOBUTTON:
                if not pdfium.FPDFAnnot_IsChecked(*field):
                    return ""
                return self._read_string(pdfium.FPDFAnnot_GetFormFieldExportValue, *field) or "Yes"
            case pdfium.FPDF_FORMFIELD_COMBOBOX | pdfium.FPDF_FORMFIELD_LISTBOX:
                options = [
                    self._read_string(pdfium.FPDFAnnot_GetOptionLabel, *field, index)
                    for index in range(max(0, pdfium.FPDFAnnot_GetOptionCount(*field)))
                    if pdfium.FPDFAnnot_IsOptionSelected(*field, index)
                ]
                return ", ".join(options) or self._read_string(pdfium.FPDFAnnot_GetFormFieldValue, *field)
            case pdfium.FPDF_FORMFIELD_TEXTFIELD:
                is_secret = pdfium.FPDFAnnot_GetFormFieldFlags(*field) & _IS_PASSWORD
                return "" if is_secret else self._read_string(pdfium.FPDFAnnot_GetFormFieldValue, *field)
        return ""

    def xfa_lines(self) -> Iterator[str]:
        """Yield `tag: text` for each value of an XFA form, unless its fields were found on the pages."""
        pdfium = self._pdfium
        xfa_types = (pdfium.FORMTYPE_XFA_FULL, pdfium.FORMTYPE_XFA_FOREGROUND)
        if self._type not in xfa_types or self._is_filled:
            return
        for index in range(pdfium.FPDF_GetXFAPacketCount(self._document)):
            name = ctypes.create_string_buffer(_NAME_BYTES)
            pdfium.FPDF_GetXFAPacketName(self._document, index, name, _NAME_BYTES)
            if name.value == b"datasets":
                yield from _xml_leaf_lines(self._read_packet(index))

    def _read_packet(self, index: int) -> bytes:
        """Return the content of an XFA packet."""
        read, length = self._pdfium.FPDF_GetXFAPacketContent, ctypes.c_ulong()
        read(self._document, index, None, 0, ctypes.byref(length))
        buffer = ctypes.create_string_buffer(length.value)
        read(self._document, index, buffer, length.value, ctypes.byref(length))
        return buffer.raw

    def _read_string(self, getter: Callable[..., int], *arguments: Any) -> str:
        """Return the text of a getter of PDFium, which writes to a buffer and returns the length it needs."""
        length = getter(*arguments, None, 0)
        buffer = ctypes.create_string_buffer(length)
        getter(*arguments, ctypes.cast(buffer, ctypes.POINTER(self._pdfium.FPDF_WCHAR)), length)
        return buffer.raw.decode("utf-16-le", "replace").rstrip("\0").strip()


def _xml_leaf_lines(data: bytes) -> Iterator[str]:
    """Yield `tag: text` for each XML element that has text and no child; nothing if the XML is damaged."""
    try:
        root = _parse_xml(data)
    except (ElementTree.ParseError, ValueError, LookupError):  # damaged, or in an encoding unknown to Python
        return
    for element in root.iter():
        if not len(element) and (text := (element.text or "").strip()):
            yield f"{element.tag.rpartition('}')[2]}: {text}"


def _parse_xml(data: bytes) -> ElementTree.Element:
    """Return the root of an XML document. Python decodes an encoding such as Shift_JIS, which Expat cannot.

    Raises `ElementTree.ParseError`, `ValueError` or `LookupError`.
    """
    try:
        return ElementTree.fromstring(data)
    except (ValueError, LookupError):
        if (declared := _XML_ENCODING.match(data)) is None:
            raise
        return ElementTree.fromstring(data.decode(declared[1].decode("ascii")))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
