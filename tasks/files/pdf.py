"""Write the text of a PDF, page by page. PDFium reads it in a child process with limited memory."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput, FinalError, TooLarge
from millpond.tasks.extras import install_command
from millpond.tasks.files import pdf_pages
from millpond.tasks.files.contract import PdfText, TextResult
from millpond.tasks.files.magic_numbers import describe_head
from millpond.tasks.files.storage import Storage

#: Where the first and the last mark of a PDF are searched, as other readers do: other data may be around
#: these.
_HEAD_BYTES, _TAIL_BYTES = 1024, 1024 * 1024
_END_MARK = b"%%EOF"
#: Parts of a PDF. One after the last mark means that the file is truncated: its real last mark is missing.
_PARTS = re.compile(rb"\b\d+\s+\d+\s+obj\b|\bendobj\b|\bendstream\b|\bstartxref\b")
_CHUNK = 256 * 1024


def extract_text(job: PdfText, storage: Storage, context: Context) -> TextResult:
    """Write the text of the source to the target as UTF-8, with a form feed between pages.

    Progress is in pages. A document without a text layer is no error: the result's note says so. Raises
    `BadInput` for a file that is no PDF, is cut off or damaged, or is encrypted without the right password.
    Raises `TooLarge` for too many pages or too much text.
    """
    storage.refuse_same_file(job.source, job.target)
    with storage.open_input(job.source, empty_allowed=False) as file:
        length = _find_end(file, job.source)
    characters = blank_pages = 0
    with storage.local_input(job.source) as path, _start_reader(path, length, job) as reader:
        pages, flags = reader.read_start(storage.limits.max_entries)
        with storage.open_output(job.target) as output:
            for number in range(1, pages + 1):
                context.checkpoint()
                if number > 1:
                    output.write(b"\f")
                text_length, page_characters = reader.read_page_length(number)
                if output.tell() + text_length > storage.limits.max_unpacked_bytes:
                    raise TooLarge(f"{job.source} holds more text than max_unpacked_bytes allows")
                for chunk in reader.read_text(text_length):
                    output.write(chunk)
                characters, blank_pages = characters + page_characters, blank_pages + (not page_characters)
                context.progress(number, pages)
            size = output.tell()
    note = _describe_missing_text(pages, blank_pages, flags)
    return TextResult(target=job.target, bytes=size, pages=pages, characters=characters, note=note)


def _find_end(file: BinaryIO, url: str) -> int:
    """Return the offset of a PDF's end. Raises `BadInput` for a truncated PDF, which PDFium would repair."""
    head = file.read(_HEAD_BYTES)
    if b"%PDF-" not in head:
        raise BadInput(f"{url} is no PDF: {describe_head(head)}")
    tail_offset = file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    mark = tail.rfind(_END_MARK)
    if mark < 0 or _PARTS.search(tail, mark):
        raise BadInput(f"{url} ends without a PDF's end mark: it was cut off")
    return tail_offset + mark + len(_END_MARK)


def _describe_missing_text(pages: int, blank_pages: int, flags: int) -> str | None:
    """Return the note of the result about pages without text. Return None if every page has text."""
    if flags & pdf_pages.HAS_XFA:
        return "an XFA form, whose pages only Adobe's reader makes: the values of its fields are at the end"
    if blank_pages == pages and flags & pdf_pages.HAS_FORM:
        return "no page has text, and no field of the form is filled"
    if blank_pages == pages:
        return "no page has a text layer: scanned pages need OCR first"
    return f"{blank_pages} of {pages} pages have no text" if blank_pages else None


@contextmanager
def _start_reader(path: str, length: int, job: PdfText) -> Iterator["_PageReader"]:
    """Start the child that reads the PDF, and yield its reader. The child ends with the block."""
    password_pipe, write_end = os.pipe()
    try:
        # Arguments are visible to other users. A password fits in the pipe's buffer, so this does not block.
        os.write(write_end, (job.password or "").encode())
        os.close(write_end)
        with open(path, "rb") as file:  # noqa: PTH123 - a descriptor's path, not a name
            child = subprocess.Popen(
                # -P: modules beside the program cannot hide those of the standard library.
                [sys.executable, "-P", pdf_pages.__file__, str(password_pipe), str(length)],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(password_pipe,),
            )
    finally:
        os.close(password_pipe)
    try:
        yield _PageReader(child, job)
    finally:
        child.kill()
        child.communicate()


@dataclass(frozen=True)
class _PageReader:
    """Reads the output of the child, in the form of `pdf_pages.py`. An early end raises an error."""

    child: "subprocess.Popen[bytes]"
    job: PdfText

    def read_start(self, max_pages: int) -> tuple[int, int]:
        """Return the number of pages and the flags of the document. Raises `TooLarge` for too many pages."""
        pages, flags = pdf_pages.HEADER.unpack(self._read_exactly(pdf_pages.HEADER.size, 0))
        if pages > max_pages:
            raise TooLarge(f"{self.job.source} has {pages} pages, over {max_pages} (max_entries)")
        return int(pages), int(flags)

    def read_page_length(self, number: int) -> tuple[int, int]:
        """Return the length of a page's text in bytes and in characters. Pages are read in order."""
        length, characters = pdf_pages.PAGE.unpack(self._read_exactly(pdf_pages.PAGE.size, number))
        return length, characters

    def read_text(self, length: int) -> Iterator[bytes]:
        """Yield the text of the page whose length was read last."""
        while length:
            chunk = self._read_exactly(min(length, _CHUNK), 0)
            length -= len(chunk)
            yield chunk

    def _read_exactly(self, size: int, number: int) -> bytes:
        """Return `size` bytes of the child's output. If it has ended, raise its error, for page `number`."""
        assert self.child.stdout is not None
        data = self.child.stdout.read(size)
        if len(data) < size:
            raise self._exit_error(number)
        return data

    def _exit_error(self, number: int) -> FinalError:
        """Wait for the child to end, and return the error for its exit code. `number` is a page, or 0."""
        subject = f"{self.job.source}, page {number}," if number else self.job.source
        match self.child.wait():
            case pdf_pages.ENCRYPTED:
                has_password = bool(self.job.password)
                remedy = "the password is wrong" if has_password else "give its password (--password-file)"
                return BadInput(f"{self.job.source} is encrypted: {remedy}")
            case pdf_pages.DAMAGED | pdf_pages.DAMAGED_PAGE:
                return BadInput(f"{subject} cannot be read: the PDF is damaged")
            case pdf_pages.UNSUPPORTED_SECURITY:
                return BadInput(f"{self.job.source} is encrypted in a way that is not supported here")
            case pdf_pages.UNEXPECTED_ERROR:
                return FinalError(
                    f"{subject} cannot be read: an unexpected error of the program {pdf_pages.__name__}, "
                    "which may be a fault of Millpond's"
                )
            case pdf_pages.NO_PDFIUM:
                return FinalError(
                    f"PDFium is not installed where the workers run: {install_command(['files'])}"
                )
        limit = f"{pdf_pages.MEMORY_BYTES // 1024**2} MiB"
        return TooLarge(
            f"{subject} takes over {limit} to read, or breaks PDFium: a decompression bomb, or damaged"
        )
