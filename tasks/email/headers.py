"""Write header lines: encoded if not ASCII, folded at spaces, without a line break from a value.

The header objects of the standard library decode encoded words in their input, so that a subject
`=?utf-8?q?a=0D=0AX:_b?=` gets a line break. Nothing here is decoded: a value is written unchanged, or encoded
as a whole (RFC 2047). Words are never split, so a long URL in List-Unsubscribe stays intact.
"""

import re
from collections.abc import Iterable
from email.header import Header

from millpond.tasks.email.address import Mailbox, parse_mailbox
from millpond.tasks.email.control_characters import require_one_line
from millpond.tasks.errors import BadInput

LINE_CHARACTERS = 76
_WORD = re.compile(r"[ \t]*[^ \t]+")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")


def text_line(name: str, value: str) -> bytes:
    """Return the lines of a header with text, such as Subject."""
    _check_value(name, value)
    return _header_line(name, _encode_word(value) if _needs_encoding(value) else value)


def address_line(name: str, addresses: Iterable[str]) -> bytes:
    """Return the lines of a header with addresses. A local part outside ASCII stays UTF-8."""
    return _header_line(name, ", ".join(_write_address(parse_mailbox(each)) for each in addresses))


def plain_line(name: str, value: str) -> bytes:
    """Return the lines of a header whose value Millpond made itself."""
    return _header_line(name, value)


def _needs_encoding(value: str) -> bool:
    return not value.isascii() or "=?" in value or value != value.strip() or "\t" in value


def _encode_word(value: str) -> str:
    """Return a text as encoded words (RFC 2047)."""
    return Header(value, "utf-8", maxlinelen=LINE_CHARACTERS - 6).encode(linesep="")


def _write_address(box: Mailbox) -> str:
    """Return an address with its name, which is quoted or encoded if it must be."""
    if not box.name:
        return box.address
    if not box.name.isascii() or "=?" in box.name:
        return f"{_encode_word(box.name)} <{box.address}>"
    if _ATOMS.fullmatch(box.name):
        return f"{box.name} <{box.address}>"
    escaped = box.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" <{box.address}>'


def _check_value(name: str, value: str) -> None:
    """Raise `BadInput` for a value that would end the line of its header."""
    try:
        require_one_line(value, tabs_allowed=True)
    except ValueError as error:
        raise BadInput(f"the header {name} {error}") from None


def _header_line(name: str, value: str) -> bytes:
    _check_value(name, value)
    return _fold_line(f"{name}: {value}".rstrip(" \t")).encode() + b"\r\n"


def _fold_line(line: str) -> str:
    """Return a line folded before spaces. A word longer than a line is on a line of its own."""
    lines = [""]
    for word in _WORD.findall(line):
        if lines[-1] and len(lines[-1]) + len(word) > LINE_CHARACTERS:
            lines.append(word)
        else:
            lines[-1] += word
    return "\r\n".join(lines)
