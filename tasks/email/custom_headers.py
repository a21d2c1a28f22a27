"""Check the headers that a sender adds: one line each, with a name that no field and no server uses."""

import re
from typing import Annotated

from pydantic import AfterValidator

from millpond.tasks.email.control_characters import require_one_line

MAX_HEADERS = 50
MAX_VALUE_CHARACTERS = 4_000
#: A line may hold 998 octets (RFC 5322, section 2.1.1) and is folded at spaces alone.
MAX_WORD_CHARACTERS = 900

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,75}")

#: Set by other fields of the contract, by the message itself, or by mail servers.
_OWNED = frozenset(
    (
        *("from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version"),
        *("return-path", "received", "received-spf", "delivered-to", "x-original-to", "apparently-to"),
        *("errors-to", "dkim-signature", "domainkey-signature", "authentication-results"),
    )
)
_OWNED_PREFIXES = ("content-", "resent-", "arc-", "x-envelope-")


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers unchanged. Raises `ValueError` that names the header at fault."""
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"{len(headers)} headers are over the limit of {MAX_HEADERS}")
    names: set[str] = set()
    for name, value in headers.items():
        _check_name(name, names)
        _check_value(name, value)
    return headers


def _check_name(name: str, names: set[str]) -> None:
    """Raise `ValueError` for a name that is malformed, reserved for Millpond or a server, or given twice."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a header: use letters, digits and hyphens")
    lower = name.lower()
    if lower in _OWNED or lower.startswith(_OWNED_PREFIXES):
        raise ValueError(
            f"the header {name} cannot be set here: use the field of the contract, or leave it out"
        )
    if lower in names:
        raise ValueError(f"the header {name} is given twice")
    names.add(lower)


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
