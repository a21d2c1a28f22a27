"""Break long lines on a terminal at spaces. A terminal itself breaks them in the middle of a word.

Into a pipe or a file a line stays a line, and so does JSON, which is for machines.
"""

import io
import re
import shutil
import sys
import textwrap
from typing import TextIO

#: A number and its unit are one value.
_VALUE = re.compile(r"(?<=\d) (?=(?:ms|s|m|h|d|B|kB|MB|GB|of)\b)|(?<=\bof) (?=\d)")
_NO_BREAK = "\0"

#: A command to copy, or an object, is left as it is.
_WHOLE = re.compile(r"\s*(?:\{|export |eval |\[?\")")


def break_long_lines() -> None:
    """Make this process break long lines at spaces wherever it writes to a terminal."""
    sys.stdout, sys.stderr = _wrap_stream(sys.stdout), _wrap_stream(sys.stderr)


def _wrap_stream(stream: TextIO) -> TextIO:
    """Return a writer of whole lines for a terminal, and any other stream as it is."""
    if not isinstance(stream, io.TextIOWrapper) or not stream.isatty():
        return stream
    stream.flush()
    return TerminalWriter(stream.buffer, stream.encoding, stream.errors, line_buffering=True)


class TerminalWriter(io.TextIOWrapper):
    """A terminal to which whole lines are written, broken at spaces if they are too long for it."""

    _begun = ""

    def write(self, text: str) -> int:
        """Write the lines that are complete. Keep the rest until it is, or until it is flushed."""
        if "\x1b" in text or "\r" in text:  # steers the terminal, and knows its width
            super().write(self._take_unfinished() + text)
            return len(text)
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            width = shutil.get_terminal_size().columns
            super().write("".join(f"{break_line(line, width)}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        """Write an unfinished line, too."""
        if not self.closed and self._begun:
            super().write(self._take_unfinished())
        super().flush()

    def _take_unfinished(self) -> str:
        begun, self._begun = self._begun, ""
        return begun


def break_line(line: str, width: int) -> str:
    """Return a line in lines of at most `width`, all but the first one indented.

    The text is broken between two spaces, which separate fields, if there are any, and otherwise at spaces.
    A word or value that is longer than the terminal is wide is left whole.
    """
    if len(line) <= width or _WHOLE.match(line):
        return line
    indent = line[: len(line) - len(line.lstrip())]
    lines, hanging = [indent], indent + ("# " if line.startswith("#") else "  ")
    for field in re.split(r" {2,}", line.strip()):
        gap = "" if lines[-1] == indent else "  "
        if len(lines[-1]) + len(gap) + len(field) <= width:
            lines[-1] += gap + field
            continue
        start = lines.pop() if lines[-1] == indent else hanging
        lines += textwrap.wrap(
            _VALUE.sub(_NO_BREAK, field),
            width,
            initial_indent=start,
            subsequent_indent=hanging,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines).replace(_NO_BREAK, " ")
