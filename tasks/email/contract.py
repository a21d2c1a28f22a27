"""The contracts of mail: one message, or one message for each row of a CSV.

With a `context`, the fields `subject`, `text` and `html` are templates with its variables, in the syntax of
Jinja (`README.md`). Without a `context` they are sent unchanged. A field that becomes a header is refused
if it could end the header's line. On the wire, `from` is an alias of `sender`.
"""

import json
from typing import Annotated, Any, Self

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
from millpond.tasks.email.attachment import Attachments
from millpond.tasks.email.control_characters import body_text, require_one_line
from millpond.tasks.email.custom_headers import CustomHeaders

MAX_RECIPIENTS = 100
MAX_SUBJECT_CHARACTERS = 900
MAX_BODY_CHARACTERS = 1_000_000
#: The text of a campaign is in each of its messages. A longer text belongs into the folder of templates.
MAX_CAMPAIGN_BODY_CHARACTERS = 64_000
MAX_CONTEXT_CHARACTERS = 64_000


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _check_context_length(context: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the context unchanged. Raises `ValueError` if it is too long as JSON."""
    length = len(json.dumps(context, allow_nan=False, ensure_ascii=False))
    if length > MAX_CONTEXT_CHARACTERS:
        raise ValueError(f"is {length} characters as JSON, over the limit of {MAX_CONTEXT_CHARACTERS}")
    return context


Addresses = Annotated[tuple[Address, ...], BeforeValidator(_as_tuple)]
Subject = Annotated[
    str, StringConstraints(max_length=MAX_SUBJECT_CHARACTERS), AfterValidator(require_one_line)
]
Body = Annotated[str, StringConstraints(max_length=MAX_BODY_CHARACTERS), AfterValidator(body_text)]
TemplateName = Annotated[
    str,
    StringConstraints(
        max_length=200, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$"
    ),
]
TemplateContext = Annotated[dict[str, JsonValue], AfterValidator(_check_context_length)]


class Mail(Contract):
    """The fields that one message and a campaign share.

    The body is `text`, `html` or both, or a `template`: NAME.txt, NAME.html or both in the folder of
    templates.
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
        """Refuse a mail with no body, or with both a text and a template."""
        inline = self.text is not None or self.html is not None
        if inline == (self.template is not None):
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
        """The bare addresses of all recipients, each once, in the given order."""
        return tuple(dict.fromkeys(parse_mailbox(each).address for each in (*self.to, *self.cc, *self.bcc)))

    @model_validator(mode="after")
    def _check_recipients(self) -> Self:
        """Refuse a mail without recipients, or with more than one SMTP session takes."""
        count = len(self.to) + len(self.cc) + len(self.bcc)
        if not count:
            raise ValueError("name at least one recipient in to, cc or bcc")
        if count > MAX_RECIPIENTS:
            raise ValueError(f"{count} recipients are over the limit of {MAX_RECIPIENTS}: send a campaign")
        return self


class SendCampaign(Mail, kind="email.campaign", queue="email"):
    """Send one message for each row of a CSV: to the address in `column`, with all columns as the context.

    A run sends at most `chunk` messages, and then itself again for the rest. `campaign` is the name of the
    whole campaign, by default the first task's id. The last four fields are set by
    a run for its continuation: leave them out.
    """

    source: Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(require_one_line)]
    column: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "email"
    chunk: int = Field(default=500, ge=1, le=5_000)
    campaign: (
        Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(require_one_line)]
        | None
    ) = None
    row: int = Field(default=0, ge=0)
    line: int = Field(default=0, ge=0)
    offset: int = Field(default=0, ge=0)
    size: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check_body_length(self) -> Self:
        """Refuse a body that is so long that its copies in a campaign's messages would fill the queue."""
        if len(self.text or "") + len(self.html or "") > MAX_CAMPAIGN_BODY_CHARACTERS:
            raise ValueError(
                f"text and html of a campaign are at most {MAX_CAMPAIGN_BODY_CHARACTERS} characters, for "
                "each message carries them: put them into the folder of templates and name the template"
            )
        return self
