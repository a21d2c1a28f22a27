"""The contracts of mail: one message, or one message for each row of a CSV.

With a `context`, the fields `subject`, `text` and `html` are templates in the syntax of Jinja (`README.md`),
with its variables. Without a `context`, they are sent unchanged. A line break in a field that becomes a
header is refused. In a message, `from` is an alias of `sender`.
"""

import json
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from millpond.tasks.contract import Contract
from millpond.tasks.email.address import Address, parse_mailbox
from millpond.tasks.email.attachment import Attachments, text_to_tuple
from millpond.tasks.email.control_characters import check_body_text, require_one_line
from millpond.tasks.email.custom_headers import CustomHeaders

MAX_RECIPIENTS = 100
MAX_SUBJECT_CHARACTERS = 900
MAX_BODY_CHARACTERS = 1_000_000
#: Each message of a campaign has its text, so a longer text must be in the folder of templates.
MAX_CAMPAIGN_BODY_CHARACTERS = 64_000
MAX_CONTEXT_CHARACTERS = 64_000


def _check_context_length(context: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the context unchanged. Raises `ValueError` if it is too long as JSON."""
    length = len(json.dumps(context, allow_nan=False, ensure_ascii=False))
    if length > MAX_CONTEXT_CHARACTERS:
        raise ValueError(f"is {length} characters as JSON, over the limit of {MAX_CONTEXT_CHARACTERS}")
    return context


Addresses = Annotated[tuple[Address, ...], BeforeValidator(text_to_tuple)]
Subject = Annotated[
    str, StringConstraints(max_length=MAX_SUBJECT_CHARACTERS), AfterValidator(require_one_line)
]
Body = Annotated[str, StringConstraints(max_length=MAX_BODY_CHARACTERS), AfterValidator(check_body_text)]
#: A path of one part or more, none of which begins with a dot.
TemplateName = Annotated[
    str,
    StringConstraints(
        max_length=200, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$"
    ),
]
TemplateContext = Annotated[dict[str, JsonValue], AfterValidator(_check_context_length)]


class Mail(Contract):
    """The fields of a message that a campaign has, too.

    The body is `text`, `html` or both. Or it is a `template`, NAME: the files NAME.txt, NAME.html or both in
    the folder of templates.
    """

    sender: Address = Field(validation_alias=AliasChoices("sender", "from"))
    reply_to: Addresses = Field(default=(), max_length=10)
    subject: Subject = ""
    text: Body | None = Field(default=None, repr=False)
    html: Body | None = Field(default=None, repr=False)
    template: TemplateName | None = None
    attachments: Attachments = ()
    headers: CustomHeaders = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_one_body(self) -> Self:
        """Raise `ValueError` for a mail without a body, or with both a body and a template."""
        has_body = self.text is not None or self.html is not None
        if has_body == (self.template is not None):
            raise ValueError("give the body in one form: text, html or both, or else a template")
        return self


class SendEmail(Mail, kind="email.send", queue="email"):
    """Send one message to all its recipients. The addresses in `bcc` do not appear in it."""

    to: Addresses = ()
    cc: Addresses = ()
    bcc: Addresses = ()
    context: TemplateContext | None = Field(default=None, repr=False)

    @property
    def recipients(self) -> tuple[str, ...]:
        """The bare addresses of all recipients, each once, in the order of `to`, `cc` and `bcc`."""
        mailboxes = map(parse_mailbox, (*self.to, *self.cc, *self.bcc))
        return tuple(dict.fromkeys(mailbox.address for mailbox in mailboxes))

    @model_validator(mode="after")
    def _check_recipients(self) -> Self:
        """Raise `ValueError` for a mail without recipients, or with too many."""
        count = len(self.to) + len(self.cc) + len(self.bcc)
        if not count:
            raise ValueError("name at least one recipient in to, cc or bcc")
        if count > MAX_RECIPIENTS:
            raise ValueError(f"{count} recipients are over the limit of {MAX_RECIPIENTS}: send a campaign")
        return self


class SendCampaign(Mail, kind="email.campaign", queue="email"):
    """Send one message for each row of a CSV: to the address in `column`, with all columns as the context.

    A run sends the messages of at most `chunk` rows, and a continuation for the next rows. `campaign` is the
    name of the campaign, by default the id of the first task. Leave out the last four fields: a run sets them
    in its continuation.
    """

    source: Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(require_one_line)]
    column: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "email"
    chunk: int = Field(default=500, ge=1, le=5_000)
    campaign: (
        Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(require_one_line)]
        | None
    ) = None
    #: The position of the run's first row (`csv_rows.Position`), and the size of the file, in bytes, then.
    row: int = Field(default=0, ge=0)
    line: int = Field(default=0, ge=0)
    offset: int = Field(default=0, ge=0)
    size: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check_body_length(self) -> Self:
        """Raise `ValueError` for a body that is too long for a copy of it in each message."""
        if len(self.text or "") + len(self.html or "") > MAX_CAMPAIGN_BODY_CHARACTERS:
            raise ValueError(
                f"text and html of a campaign are at most {MAX_CAMPAIGN_BODY_CHARACTERS} characters, for "
                "each message carries them: put them into the folder of templates and name the template"
            )
        return self
