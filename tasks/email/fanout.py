"""Send one chunk of a campaign, and a continuation for the next chunk, without waiting for room.

A chunk is claimed in the ledger by the row that it begins at. A chunk that is delivered twice is therefore
sent once, even if its worker died between sending the continuation and settling the task.
"""

from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from millpond.tasks.context import Context
from millpond.tasks.email.campaign import BadRow, CampaignMail, read_mails
from millpond.tasks.email.contract import SendCampaign
from millpond.tasks.email.csv_rows import Position
from millpond.tasks.email.delivery import OpenInput
from millpond.tasks.email.ledger import MailLedger
from millpond.tasks.email.outbox import CampaignOutbox
from millpond.tasks.email.receipt import CampaignStep
from millpond.tasks.email.templates import check_templates
from millpond.tasks.errors import BadInput, BrokerError, RetryLater

FULL_PAUSE_SECONDS = 2.0
CLAIM_SECONDS = 120.0
MAX_REASONS = 20
#: The mails of a chunk that are rendered before any is sent.
CHECKED_MAILS = 3


@dataclass(frozen=True)
class _Chunk:
    """The mails and bad rows of a chunk, in order. `size` is the size of the file in bytes."""

    entries: list[CampaignMail | BadRow]
    is_last: bool
    size: int

    @property
    def mails(self) -> list[CampaignMail]:
        return [entry for entry in self.entries if isinstance(entry, CampaignMail)]

    def entries_before(self, mails: int) -> list[CampaignMail | BadRow]:
        """Return the entries before mail number `mails`, counted from 0."""
        if mails >= len(self.mails):
            return self.entries
        return self.entries[: self.entries.index(self.mails[mails])]


def send_chunk(
    job: SendCampaign,
    context: Context,
    *,
    outbox: CampaignOutbox,
    ledger: MailLedger,
    open_input: OpenInput,
    templates: Path | None,
) -> CampaignStep:
    """Send the mails of at most `job.chunk` rows, and a continuation unless these were the last rows.

    `templates` is the folder of templates. Raises `BadInput` if they fail for each of the first rows.
    Raises `RetryLater` while another delivery sends this chunk, and if the ledger cannot be reached.
    """
    campaign_id = job.campaign or context.id
    key, owner = f"{campaign_id}/{job.row}", uuid4().hex
    try:
        claim = ledger.claim(key, owner, seconds=CLAIM_SECONDS)
    except BrokerError as error:
        raise RetryLater(f"nothing was sent: {error}") from error
    if claim.state == "busy":
        message = f"row {job.row} of campaign {campaign_id} is being sent by another delivery"
        raise RetryLater(message, after_seconds=claim.wait_seconds + 0.1)
    if claim.state == "sent":
        return CampaignStep(campaign=campaign_id, first_row=job.row, sent=0, duplicate=True)
    try:
        step = _send_rows(job, campaign_id, outbox, open_input, templates)
    except BaseException:
        with suppress(BrokerError):
            ledger.forget(key, owner)
        raise
    with suppress(BrokerError):  # a chunk that is sent again has the same mails, which the ledger knows
        if step.next_row == job.row:
            ledger.forget(key, owner)
        else:
            ledger.record(key, owner, {}, sent=True)
    context.progress(job.row + step.sent + step.skipped)
    return step


def _send_rows(
    job: SendCampaign, campaign_id: str, outbox: CampaignOutbox, open_input: OpenInput, templates: Path | None
) -> CampaignStep:
    """Send the mails of a chunk and its continuation, and return how far the campaign got."""
    with open_input(job.source) as stream:
        chunk = _read_chunk(job, stream, campaign_id)
    check_templates([mail.job for mail in chunk.mails[:CHECKED_MAILS]], folder=templates)
    accepted = outbox.send_many((mail.id, mail.job) for mail in chunk.mails)
    done = chunk.entries_before(accepted)
    bad = [entry for entry in done if isinstance(entry, BadRow)]
    step = CampaignStep(
        campaign=campaign_id,
        first_row=job.row,
        sent=accepted,
        skipped=len(bad),
        reasons=tuple(map(str, bad[:MAX_REASONS])),
    )
    if chunk.is_last and done is chunk.entries:
        return step
    after = done[-1].after if done else Position(job.row, job.line, job.offset)
    where = {"row": after.row, "line": after.line, "offset": after.offset, "size": chunk.size}
    rest = job.model_copy(update={"campaign": campaign_id, **where})
    outbox.send_continuation(rest, after_seconds=0.0 if done is chunk.entries else FULL_PAUSE_SECONDS)
    return step.model_copy(update={"next_row": after.row})


def _read_chunk(job: SendCampaign, stream: BinaryIO, campaign_id: str) -> _Chunk:
    """Return the next rows of the file. Raises `BadInput` if the file changed since the first run."""
    size = stream.seek(0, 2)
    stream.seek(0)
    if job.size is not None and job.size != size:
        raise BadInput(
            f"{job.source} was changed while the campaign was sent, at row {job.row}: send the rest anew"
        )
    mails = read_mails(job, stream, campaign_id=campaign_id)
    entries = list(islice(mails, job.chunk))
    return _Chunk(entries, is_last=len(entries) < job.chunk, size=size)
