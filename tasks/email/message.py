"""Compose the bytes of a mail from its contract. The same task makes the same bytes, except for the date.

The Message-ID is the task's id at the configured domain, so a receiver can recognize a duplicate. The
standard library makes the MIME parts, and `headers.py` the header lines. The addresses in Bcc are only in the
envelope.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from millpond.tasks.email.address import parse_mailbox
from millpond.tasks.email.attachment import guess_content_type
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.control_characters import check_body_text
from millpond.tasks.email.headers import encode_address_header, encode_header, encode_text_header
from millpond.tasks.errors import BadInput

#: 7bit, so that the mail server needs no 8BITMIME, and no relay encodes a part anew.
_POLICY = SMTP.clone(cte_type="7bit")


@dataclass(frozen=True)
class Content:
    """The rendered subject and bodies of a message."""

    subject: str
    text: str | None
    html: str | None


@dataclass(frozen=True)
class LoadedAttachment:
    """An attachment with its content."""

    name: str
    content_type: str | None
    data: bytes


@dataclass(frozen=True)
class Envelope:
    """A message for an SMTP session: its sender, its recipients, and its bytes with CRLF as line ends.

    `needs_smtputf8` is True if an address has a local part outside ASCII (RFC 6531).
    """

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    payload: bytes
    needs_smtputf8: bool


def compose_mail(
    job: SendEmail,
    content: Content,
    attachments: Sequence[LoadedAttachment],
    *,
    task_id: str,
    domain: str,
    now: datetime,
) -> Envelope:
    """Return the composed message. Raises `BadInput` for a character that no mail may have."""
    message_id = make_message_id(task_id, domain)
    headers = [
        encode_header("Date", format_datetime(now)),
        encode_header("Message-ID", message_id),
        encode_address_header("From", [job.sender]),
        *_encode_addresses(job),
        encode_text_header("Subject", content.subject),
        *(encode_text_header(name, value) for name, value in job.headers.items()),
    ]
    body = _build_body(content, attachments)
    _set_boundaries(body, seed=f"{message_id}\n{content!r}")
    sender, *reply_to = (parse_mailbox(address).address for address in (job.sender, *job.reply_to))
    return Envelope(
        message_id=message_id,
        sender=sender,
        recipients=job.recipients,
        payload=b"".join(headers) + body.as_bytes(),
        needs_smtputf8=not all(map(str.isascii, (sender, *job.recipients, *reply_to))),
    )


def make_message_id(task_id: str, domain: str) -> str:
    """Return the Message-ID of a task's mail: its id, or else the digest of that. No delivery changes it."""
    local_part = task_id
    if not (task_id.isascii() and re.fullmatch(r"[\w-]{1,128}", task_id)):
        local_part = hashlib.sha256(task_id.encode(errors="surrogatepass")).hexdigest()
    return f"<{local_part}@{domain}>"


def _encode_addresses(job: SendEmail) -> list[bytes]:
    """Return the lines of To, Cc and Reply-To. To is never missing."""
    fields = (("To", job.to), ("Cc", job.cc), ("Reply-To", job.reply_to))
    lines = [encode_address_header(name, addresses) for name, addresses in fields if addresses]
    return lines if job.to or job.cc else [encode_header("To", "undisclosed-recipients:;"), *lines]


def _build_body(content: Content, attachments: Sequence[LoadedAttachment]) -> EmailMessage:
    """Return the MIME message of the text, the HTML and the attachments. Raises `BadInput`."""
    body = EmailMessage(policy=_POLICY)
    if content.text is not None:
        body.set_content(_require_body_text(content.text))
        if content.html is not None:
            body.add_alternative(_require_body_text(content.html), subtype="html")
    else:
        body.set_content(_require_body_text(content.html or ""), subtype="html")
    for attachment in attachments:
        content_type = attachment.content_type or guess_content_type(attachment.name)
        maintype, _, subtype = content_type.partition("/")
        body.add_attachment(attachment.data, maintype=maintype, subtype=subtype, filename=attachment.name)
    return body


def _require_body_text(text: str) -> str:
    """Return a body unchanged. Raises `BadInput` for a character that no mail may have."""
    try:
        return check_body_text(text)
    except ValueError as error:
        raise BadInput(f"the body {error}") from None


def _set_boundaries(body: EmailMessage, *, seed: str) -> None:
    """Set the boundary of every multipart to a digest of `seed`, which no content contains by chance."""
    digest = hashlib.sha256(seed.encode()).hexdigest()[:32]
    for number, part in enumerate(part for part in body.walk() if part.is_multipart()):
        part.set_boundary(f"=_{digest}_{number}")
