"""Write the lines of headers: encoded unless they are ASCII, folded at spaces, and each value on one line.

The header objects of the standard library decode encoded words in a value, so a subject
`=?utf-8?q?a=0D=0AX:_b?=` would get a line break. Here, a value is written unchanged, or encoded as a whole
(RFC 2047). Lines are folded only between words, so a long URL in List-Unsubscribe is not broken.
"""

import re
from collections.abc import Iterable
from email.header import Header

from millpond.tasks.email.address import Mailbox, parse_mailbox
from millpond.tasks.email.control_characters import require_one_line
from millpond.tasks.errors import BadInput

LINE_CHARACTERS = 76
_WORD = re.compile(r"[ \t]*[^ \t]+")


def encode_text_header(name: str, value: str) -> bytes:
    """Return the lines of a header with a text, such as Subject: encoded if it must be.

    Raises `BadInput` for a line break, which the encoding would hide.
    """
    _require_one_line(name, value)
    return encode_header(name, _encode_words(value) if _needs_encoding(value) else value)


def encode_address_header(name: str, addresses: Iterable[str]) -> bytes:
    """Return the lines of a header with addresses. A local part outside ASCII is written as UTF-8."""
    return encode_header(name, ", ".join(_write_mailbox(parse_mailbox(address)) for address in addresses))


def encode_header(name: str, value: str) -> bytes:
    """Return the lines of a header, folded, with a value that needs no encoding, such as Date.

    Raises `BadInput` for a line break.
    """
    _require_one_line(name, value)
    return _fold_line(f"{name}: {value}".rstrip(" \t")).encode() + b"\r\n"


def _needs_encoding(value: str) -> bool:
    """True if a text, written unchanged, would be read as another text."""
    return not value.isascii() or "=?" in value or value != value.strip() or "\t" in value


def _encode_words(value: str) -> str:
    """Return a text as encoded words (RFC 2047), separated by spaces."""
    return Header(value, "utf-8", maxlinelen=LINE_CHARACTERS - 6).encode(linesep="")


def _write_mailbox(mailbox: Mailbox) -> str:
    """Return a name, encoded or quoted if it must be, and its address; or the address alone."""
    if mailbox.name.isascii() and "=?" not in mailbox.name:
        return str(mailbox)
    return f"{_encode_words(mailbox.name)} <{mailbox.address}>"


def _require_one_line(name: str, value: str) -> None:
    """Raise `BadInput` for a value with a line break or another control character."""
    try:
        require_one_line(value, tabs_allowed=True)
    except ValueError as error:
        raise BadInput(f"the header {name} {error}") from None


def _fold_line(line: str) -> str:
    """Return a line folded between words. A word that is longer than a line has its own line."""
    lines = [""]
    for word in _WORD.findall(line):
        if lines[-1] and len(lines[-1]) + len(word) > LINE_CHARACTERS:
            lines.append(word)
        else:
            lines[-1] += word
    return "\r\n".join(lines)
