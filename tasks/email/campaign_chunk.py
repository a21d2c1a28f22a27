"""Send one chunk of a campaign, and a continuation for the next chunk, without waiting for room in the queue.

A chunk is claimed in the ledger, under the number of its first row. So a chunk that is delivered twice is
sent once, even if its worker dies after sending the continuation and before settling the task.
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
from millpond.tasks.email.ledger import MailLedger, claim_or_retry
from millpond.tasks.email.mailer import OpenInput
from millpond.tasks.email.outbox import CampaignOutbox
from millpond.tasks.email.results import CampaignStep
from millpond.tasks.email.templates import check_templates
from millpond.tasks.errors import BadInput, BrokerError

#: The delay of the continuation if the queue was full.
FULL_PAUSE_SECONDS = 2.0
#: How long a delivery may take to send a chunk before another one sends it.
CLAIM_SECONDS = 120.0
#: The most reasons for skipped rows in a result.
MAX_REASONS = 20
#: The number of mails of a chunk that are rendered as a check before any is sent.
CHECKED_MAILS = 3


@dataclass(frozen=True)
class _Chunk:
    """The mails and bad rows of a chunk, in order. `size` is the size of the whole file in bytes."""

    entries: list[CampaignMail | BadRow]
    is_last: bool
    size: int

    @property
    def mails(self) -> list[CampaignMail]:
        """The mails, without the bad rows."""
        return [entry for entry in self.entries if isinstance(entry, CampaignMail)]

    def entries_before(self, mail_number: int) -> list[CampaignMail | BadRow]:
        """Return the entries before a mail, counted from 0; all entries if there is no such mail."""
        if mail_number == len(self.mails):
            return self.entries
        return self.entries[: self.entries.index(self.mails[mail_number])]


def send_chunk(
    job: SendCampaign,
    context: Context,
    *,
    outbox: CampaignOutbox,
    ledger: MailLedger,
    open_input: OpenInput,
    templates: Path | None,
) -> CampaignStep:
    """Claim the chunk and send its mails, and a continuation unless these were the last rows of the file.

    `templates` is the folder of templates. Raises `BadInput` for a bad file, and if the templates fail for
    each of the first mails. Raises `RetryLater` while another delivery sends this chunk, and if the ledger
    cannot be reached.
    """
    campaign_id = job.campaign or context.id
    key, owner = f"{campaign_id}/{job.row}", uuid4().hex
    busy_reason = f"row {job.row} of campaign {campaign_id} is being sent by another delivery"
    claim = claim_or_retry(ledger, key, owner, seconds=CLAIM_SECONDS, busy_reason=busy_reason)
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
    """Send the mails of a chunk, as many as the queue accepts, and a continuation from there."""
    with open_input(job.source) as stream:
        chunk = _read_chunk(job, stream, campaign_id)
    check_templates([mail.job for mail in chunk.mails[:CHECKED_MAILS]], folder=templates)
    accepted = outbox.send_many((mail.id, mail.job) for mail in chunk.mails)
    done = chunk.entries_before(accepted)
    bad_rows = [entry for entry in done if isinstance(entry, BadRow)]
    step = CampaignStep(
        campaign=campaign_id,
        first_row=job.row,
        sent=accepted,
        skipped=len(bad_rows),
        reasons=tuple(map(str, bad_rows[:MAX_REASONS])),
    )
    is_complete = accepted == len(chunk.mails)
    if chunk.is_last and is_complete:
        return step
    next_ = done[-1].after if done else Position(job.row, job.line, job.offset)
    position = {"row": next_.row, "line": next_.line, "offset": next_.offset, "size": chunk.size}
    continuation = job.model_copy(update={"campaign": campaign_id, **position})
    outbox.send_continuation(continuation, after_seconds=0.0 if is_complete else FULL_PAUSE_SECONDS)
    return step.model_copy(update={"next_row": next_.row})


def _read_chunk(job: SendCampaign, stream: BinaryIO, campaign_id: str) -> _Chunk:
    """Return the chunk that this run sends. Raises `BadInput` if the file's size has changed."""
    size = stream.seek(0, 2)
    stream.seek(0)
    if job.size is not None and job.size != size:
        raise BadInput(
            f"{job.source} was changed while the campaign was sent, at row {job.row}: send the rest anew"
        )
    mails = read_mails(job, stream, campaign_id=campaign_id)
    entries = list(islice(mails, job.chunk))
    return _Chunk(entries, is_last=len(entries) < job.chunk, size=size)
