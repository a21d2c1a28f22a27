"""Check the headers that a sender adds to a mail: one line each, under a name that is not reserved."""

import re
from typing import Annotated

from pydantic import AfterValidator

from millpond.tasks.email.control_characters import require_one_line

MAX_HEADERS = 50
MAX_VALUE_CHARACTERS = 4_000
#: A line has at most 998 bytes (RFC 5322, section 2.1.1), and is folded only at spaces.
MAX_WORD_CHARACTERS = 900

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,75}")

#: Headers that other fields of the contract, the message itself or mail servers set.
_RESERVED = frozenset(
    (
        *("from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version"),
        *("return-path", "received", "received-spf", "delivered-to", "x-original-to", "apparently-to"),
        *("errors-to", "dkim-signature", "domainkey-signature", "authentication-results"),
    )
)
_RESERVED_PREFIXES = ("content-", "resent-", "arc-", "x-envelope-")


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers unchanged. Raises `ValueError` with the header at fault."""
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"{len(headers)} headers are over the limit of {MAX_HEADERS}")
    seen: set[str] = set()
    for name, value in headers.items():
        _check_name(name, seen)
        _check_value(name, value)
    return headers


def _check_name(name: str, seen: set[str]) -> None:
    """Add a name to `seen`. Raises `ValueError` if it is malformed, reserved, or in `seen` already."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a header: use letters, digits and hyphens")
    lower = name.lower()
    if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
        raise ValueError(
            f"the header {name} cannot be set here: use the field of the contract, or leave it out"
        )
    if lower in seen:
        raise ValueError(f"the header {name} is given twice")
    seen.add(lower)


def _check_value(name: str, value: str) -> None:
    """Raise `ValueError` for a value that is empty, too long, or not one line."""
    try:
        require_one_line(value, tabs_allowed=True)
    except ValueError as error:
        raise ValueError(f"the header {name} {error}") from None
    if not value.strip():
        raise ValueError(f"the header {name} is empty: leave it out")
    if len(value) > MAX_VALUE_CHARACTERS or any(len(word) > MAX_WORD_CHARACTERS for word in value.split()):
        raise ValueError(
            f"the header {name} is too long: at most {MAX_VALUE_CHARACTERS} characters and "
            f"{MAX_WORD_CHARACTERS} a word"
        )


#: Further headers by name, such as List-Unsubscribe or X-Campaign.
CustomHeaders = Annotated[dict[str, str], AfterValidator(_check_headers)]
