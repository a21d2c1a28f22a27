"""Read a PDF's pages with PDFium, as a program of its own: `pdf.py` starts it and bounds what it may use.

PDFium ends its process where memory runs out, and is a large C++ program that reads what strangers send. The
PDF is the standard input. Written are the number of pages (4 bytes), and for each page the length of its text
in bytes (4), in characters (4), and the text. It ends with one of the codes below.
"""

import os
import resource
import struct
import sys
from contextlib import closing

COUNT = struct.Struct(">I")
PAGE = struct.Struct(">II")
ENCRYPTED, DAMAGED, DAMAGED_PAGE, NO_PDFIUM = 3, 4, 5, 6
MEMORY_BYTES = 1024 * 1024 * 1024
#: For a child whose parent was killed; otherwise the task's own limit is what ends it.
_PROCESSOR_SECONDS = 3600
_PASSWORD_ERROR = 4


def main() -> int:
    """Write all pages; the first argument is the descriptor to read the password from."""
    try:
        import pypdfium2
    except ImportError:
        return NO_PDFIUM
    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        password = pipe.read().decode() or None
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_PROCESSOR_SECONDS, _PROCESSOR_SECONDS))
    try:
        document = pypdfium2.PdfDocument(sys.stdin.buffer, password=password)
    except pypdfium2.PdfiumError as error:
        return ENCRYPTED if error.err_code == _PASSWORD_ERROR else DAMAGED
    sys.stdout.buffer.write(COUNT.pack(len(document)))
    sys.stdout.buffer.flush()  # what is written has left this process before PDFium may end it
    for at in range(len(document)):
        try:
            with closing(document[at]) as page, closing(page.get_textpage()) as textpage:
                text = textpage.get_text_range()
        except pypdfium2.PdfiumError:
            return DAMAGED_PAGE
        text = cleaned(text)
        content = text.encode("utf-8", "replace")
        sys.stdout.buffer.write(PAGE.pack(len(content), len(text)) + content)
        sys.stdout.buffer.flush()
    return 0


def cleaned(text: str) -> str:
    """Return a page's text with plain line ends, and with the hyphens at line ends that are on the page."""
    # PDFium has U+FFFE for a hyphen that ends a line, and joins the lines.
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufffe", "-")
    return text.replace("\0", "").replace("\f", "\n")


if __name__ == "__main__":
    sys.exit(main())
