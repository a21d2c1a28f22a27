"""Read the mails of a campaign, one for each row of its CSV, in constant memory.

The id of a mail is a digest of the campaign, the row and the address. So a row that is read again makes the
same mail, and the ledger prevents a second sending. The columns of the row are the variables of the
templates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID, uuid5

from pydantic import ValidationError

from millpond.tasks.email.address import parse_mailbox
from millpond.tasks.email.contract import SendCampaign, SendEmail
from millpond.tasks.email.csv_rows import Position, Row, read_rows
from millpond.tasks.errors import BadInput
from millpond.tasks.field_faults import describe_fault

#: The namespace of the ids of mails (RFC 9562, section 5.5).
NAMESPACE = UUID("6f1c1f4e-58a5-5c0a-9f5e-0d7f6b1b7c52")

#: The fields of a campaign that all its mails have.
_SHARED_FIELDS = ("sender", "reply_to", "subject", "text", "html", "template", "attachments", "headers")


@dataclass(frozen=True)
class CampaignMail:
    """One mail of a campaign, its task id, and the position of the next row."""

    id: str
    job: SendEmail
    after: Position


@dataclass(frozen=True)
class BadRow:
    """A row that makes no valid mail, with its line, from 1, the reason, and the position of the next row."""

    line: int
    reason: str
    after: Position

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


def read_valid_mails(campaign: SendCampaign, stream: BinaryIO, *, campaign_id: str) -> Iterator[CampaignMail]:
    """Yield the mails of `read_mails`. Raises `BadInput` at the first bad row, too."""
    for entry in read_mails(campaign, stream, campaign_id=campaign_id):
        if isinstance(entry, BadRow):
            raise BadInput(f"the CSV cannot be used, {entry}")
        yield entry


def read_mails(
    campaign: SendCampaign, stream: BinaryIO, *, campaign_id: str
) -> Iterator[CampaignMail | BadRow]:
    """Yield a mail or a bad row for each row of the CSV, from the row at which this run begins.

    Raises `BadInput` if the file lacks the column with the addresses, or is no CSV in UTF-8.
    """
    columns, rows = read_rows(stream, Position(campaign.row, campaign.line, campaign.offset))
    if campaign.column not in columns:
        raise BadInput(
            f"the CSV has no column {campaign.column!r}, only {', '.join(map(repr, columns))}: "
            "rename one, or name the column with the addresses"
        )
    shared: dict[str, Any] = {name: getattr(campaign, name) for name in _SHARED_FIELDS}
    for row in rows:
        try:
            job = _mail_of_row(shared, columns, row, campaign.column)
        except ValueError as error:
            yield BadRow(row.line, _describe_error(error), row.after)
        else:
            digest = uuid5(NAMESPACE, f"{campaign_id}\n{row.number}\n{parse_mailbox(job.to[0]).address}")
            yield CampaignMail(str(digest), job, row.after)


def _mail_of_row(shared: dict[str, Any], columns: list[str], row: Row, column: str) -> SendEmail:
    """Return the mail for a row. Raises `ValueError` for another number of fields, or for an invalid mail."""
    if len(row.cells) != len(columns):
        raise ValueError(f"it has {len(row.cells)} fields where the header names {len(columns)}")
    context = dict(zip(columns, row.cells, strict=True))
    return SendEmail(**shared, to=(context[column],), context=context)


def _describe_error(error: ValueError) -> str:
    """Return the reason why a row makes no valid mail, in one line and without the row's values."""
    if isinstance(error, ValidationError):
        faults = error.errors(include_input=False, include_url=False)
        return "; ".join(describe_fault(fault) for fault in faults)
    return str(error)
