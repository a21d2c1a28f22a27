"""Break long lines on a terminal at spaces. A terminal itself breaks them in the middle of a word.

Lines to a pipe or a file are not broken, and neither is JSON.
"""

import io
import re
import shutil
import sys
import textwrap
from typing import TextIO

#: The space between a number and its unit, where no line is broken.
_SPACE_IN_VALUE = re.compile(r"(?<=\d) (?=(?:ms|s|m|h|d|B|kB|MB|GB|of)\b)|(?<=\bof) (?=\d)")
#: Stands for a space at which a line is not broken.
_NO_BREAK = "\0"

#: The start of a line that is not broken: a command to copy, or JSON.
_UNBROKEN_LINE = re.compile(r"\s*(?:\{|export |eval |\[?\")")


def break_long_lines() -> None:
    """Replace stdout and stderr by writers that break long lines, where they are terminals."""
    sys.stdout, sys.stderr = _wrap_stream(sys.stdout), _wrap_stream(sys.stderr)


def _wrap_stream(stream: TextIO) -> TextIO:
    """Return a `TerminalWriter` for a terminal. Return any other stream unchanged."""
    if not isinstance(stream, io.TextIOWrapper) or not stream.isatty():
        return stream
    stream.flush()
    return TerminalWriter(stream.buffer, stream.encoding, stream.errors, line_buffering=True)


class TerminalWriter(io.TextIOWrapper):
    """A stream to a terminal that writes whole lines, broken at spaces to fit the terminal's width."""

    _unfinished = ""

    def write(self, text: str) -> int:
        """Write the complete lines. Buffer an unfinished one until its end is written, or until `flush`."""
        if "\x1b" in text or "\r" in text:  # the writer controls the terminal itself
            super().write(self._take_unfinished() + text)
            return len(text)
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        if lines:
            width = shutil.get_terminal_size().columns
            super().write("".join(f"{break_line(line, width)}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        """Write the unfinished line as it is, too."""
        if not self.closed and self._unfinished:
            super().write(self._take_unfinished())
        super().flush()

    def _take_unfinished(self) -> str:
        text, self._unfinished = self._unfinished, ""
        return text


def break_line(line: str, width: int) -> str:
    """Return a line broken into lines of at most `width` characters. All but the first are indented.

    Two spaces separate fields: the line is broken there if possible, and otherwise at single spaces. A word
    that is longer than `width` is not broken.
    """
    if len(line) <= width or _UNBROKEN_LINE.match(line):
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
            _SPACE_IN_VALUE.sub(_NO_BREAK, field),
            width,
            initial_indent=start,
            subsequent_indent=hanging,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines).replace(_NO_BREAK, " ")
