"""Make the bytes of a mail from its contract: the same task gives the same bytes, but for the date.

The Message-ID is the task's id at the configured domain, so that whoever receives a message twice can tell.
MIME parts come from the standard library, header lines from `headers.py`. Bcc is in the envelope only.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from mimetypes import MimeTypes

from millpond.tasks.email.address import mailbox
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.headers import address_line, plain_line, text_line
from millpond.tasks.email.plain import body_text
from millpond.tasks.errors import BadInput

#: 7bit: nothing asks the server for 8BITMIME, and no relay needs to recode a part.
_POLICY = SMTP.clone(cte_type="7bit")

#: Only the table in the standard library, not the host's files: every worker gives the same type.
_TYPES = MimeTypes(filenames=())


@dataclass(frozen=True)
class Content:
    """Hold what a message says, after templates."""

    subject: str
    text: str | None
    html: str | None


@dataclass(frozen=True)
class Loaded:
    """Hold an attachment that was read."""

    name: str
    content_type: str | None
    data: bytes


@dataclass(frozen=True)
class Envelope:
    """Hold what the SMTP conversation needs: who, to whom, and the bytes with CRLF line ends.

    `needs_smtputf8` says that an address has a local part outside ASCII (RFC 6531).
    """

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    payload: bytes
    needs_smtputf8: bool


def compose(
    job: SendEmail,
    content: Content,
    attachments: Sequence[Loaded],
    *,
    task_id: str,
    domain: str,
    now: datetime,
) -> Envelope:
    """Build the message; raise `BadInput` if what templates made of it cannot be mailed."""
    message_id = message_id_of(task_id, domain)
    headers = [
        plain_line("Date", format_datetime(now)),
        plain_line("Message-ID", message_id),
        address_line("From", [job.sender]),
        *_address_mailable(job),
        text_line("Subject", content.subject),
        *(text_line(name, value) for name, value in job.headers.items()),
    ]
    body = _parts(content, attachments)
    _set_boundaries(body, seed=f"{message_id}\n{content!r}")
    sender = mailbox(job.sender).address
    return Envelope(
        message_id=message_id,
        sender=sender,
        recipients=job.recipients,
        payload=b"".join(headers) + body.as_bytes(),
        needs_smtputf8=not all(address.isascii() for address in (sender, *_shown_and_hidden(job))),
    )


def message_id_of(task_id: str, domain: str) -> str:
    """Return the Message-ID of a task's mail, the same at each delivery."""
    return f"<{_id_left(task_id)}@{domain}>"


def _address_mailable(job: SendEmail) -> list[bytes]:
    fields = (("To", job.to), ("Cc", job.cc), ("Reply-To", job.reply_to))
    lines = [address_line(name, addresses) for name, addresses in fields if addresses]
    return lines if job.to or job.cc else [plain_line("To", "undisclosed-recipients:;"), *lines]


def _shown_and_hidden(job: SendEmail) -> tuple[str, ...]:
    return (*job.recipients, *(mailbox(each).address for each in job.reply_to))


def _id_left(task_id: str) -> str:
    """Return the left-hand side of a Message-ID: the task's id if it may stand there, or else its digest."""
    if task_id.isascii() and task_id.replace("-", "").replace("_", "").isalnum() and len(task_id) <= 128:
        return task_id
    return hashlib.sha256(task_id.encode(errors="surrogatepass")).hexdigest()


def _parts(content: Content, attachments: Sequence[Loaded]) -> EmailMessage:
    body = EmailMessage(policy=_POLICY)
    if content.text is not None:
        body.set_content(_mailable(content.text))
        if content.html is not None:
            body.add_alternative(_mailable(content.html), subtype="html")
    else:
        body.set_content(_mailable(content.html or ""), subtype="html")
    for each in attachments:
        content_type = each.content_type or _TYPES.guess_type(each.name)[0] or "application/octet-stream"
        main, _, sub = content_type.partition("/")
        body.add_attachment(each.data, maintype=main, subtype=sub, filename=each.name)
    return body


def _mailable(text: str) -> str:
    """Return text that may be mailed; the library makes CRLF of every line break, a lone CR included."""
    try:
        return body_text(text)
    except ValueError as error:
        raise BadInput(f"the body {error}") from None


def _set_boundaries(body: EmailMessage, *, seed: str) -> None:
    """Give every multipart a boundary made from the content, which therefore cannot hold it."""
    digest = hashlib.sha256(seed.encode()).hexdigest()[:32]
    for number, part in enumerate(part for part in body.walk() if part.is_multipart()):
        part.set_boundary(f"=_{digest}_{number}")
