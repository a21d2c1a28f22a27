"""Validate and normalize mail addresses: `ann@example.org`, `Ann Lee <ann@example.org>`.

A domain is converted to ASCII (IDNA 2008), so only a local part outside ASCII needs a server with SMTPUTF8.
No DNS request is made. The library that validates is imported at the first address, because that takes long.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from millpond.tasks.email.control_characters import require_one_line

MAX_NAME_CHARACTERS = 200

#: A domain name of one label or more, with letters, digits and hyphens (RFC 1123, 2.1).
_DOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.I | re.A
)
#: A display name that is accepted without quotes, and one in quotes.
_UNQUOTED_NAME = re.compile(r'[^<>"\\@]*')
_QUOTED_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
#: A character, or the beginning of an encoded word, for which a display name is written in quotes.
_NEEDS_QUOTES = re.compile(r"[^\w !#$%&'*+/=?^`{|}~-]|=\?")


@dataclass(frozen=True)
class Mailbox:
    """A display name, which may be empty, and a bare mail address."""

    name: str
    address: str

    def __str__(self) -> str:
        """Return the normalized text of both, with the name quoted if it must be."""
        if not self.name:
            return self.address
        if not _NEEDS_QUOTES.search(self.name):
            return f"{self.name} <{self.address}>"
        escaped = self.name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" <{self.address}>'


@lru_cache(maxsize=4096)
def parse_mailbox(text: str) -> Mailbox:
    """Return the normalized mailbox of a text, with or without a name. Raises `ValueError`."""
    from email_validator import EmailNotValidError, validate_email

    name, bare = _split_mailbox(require_one_line(text).strip())
    try:
        checked = validate_email(bare, check_deliverability=False)
    except EmailNotValidError as error:
        local, _, domain = bare.rpartition("@")
        if not _DOMAIN.fullmatch(domain):
            raise ValueError(f"{bare!r} is not a mail address: {error}") from None
        if not _is_intranet_domain(domain):
            raise ValueError(
                f"{bare!r} is not a mail address of the Internet: {error} If it is one of your own network, "
                "name its domain in MILLPOND_SMTP__INTRANET_DOMAINS"
            ) from None
        # The local part is checked, and normalized, with a domain of the Internet.
        local = parse_mailbox(f"{local}@example.org").address.rpartition("@")[0]
        return Mailbox(name, f"{local}@{domain.lower()}")
    return Mailbox(name, f"{checked.local_part}@{checked.ascii_domain}")


def _is_intranet_domain(domain: str) -> bool:
    """True if the settings allow addresses of this domain, or of one above it."""
    from millpond.tasks.settings import settings  # here, because it imports TLS

    allowed = (name.lower().strip(".") for name in settings().smtp.intranet_domains)
    return any(f".{domain.lower()}".endswith(f".{name}") for name in allowed)


def _split_mailbox(text: str) -> tuple[str, str]:
    """Return the name without its quotes, and the bare address, of a text. Raises `ValueError`."""
    if not text.endswith(">") or "<" not in text:
        return "", text
    name, _, bare = text[:-1].rpartition("<")
    name = name.strip()
    if quoted := _QUOTED_NAME.fullmatch(name):
        name = re.sub(r"\\(.)", r"\1", quoted[1]).strip()
    elif not _UNQUOTED_NAME.fullmatch(name):
        raise ValueError(f'{name!r} must stand in double quotes before an address: "Name" <local@domain>')
    if len(name) > MAX_NAME_CHARACTERS:
        raise ValueError(f"the name before an address is over {MAX_NAME_CHARACTERS} characters: shorten it")
    return name, bare.strip()


#: A mail address with or without a name, normalized.
Address = Annotated[
    str,
    StringConstraints(min_length=3, max_length=700),
    AfterValidator(lambda text: str(parse_mailbox(text))),
]
