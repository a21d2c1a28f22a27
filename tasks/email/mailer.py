"""Send one mail: claim it in the ledger, compose it, submit it to the mail server, and record the replies.

The settings and connections are passed to `Mailer`, so that a test can replace them.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import SEEK_END
from typing import BinaryIO
from uuid import uuid4

from millpond.tasks.email.attachment_budget import AttachmentBudget
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.ledger import ACCEPTED, Claim, MailLedger, claim_or_retry
from millpond.tasks.email.message import Envelope, LoadedAttachment, compose_mail, make_message_id
from millpond.tasks.email.results import Receipt
from millpond.tasks.email.smtp_connections import SmtpConnections
from millpond.tasks.email.smtp_session import SmtpResult
from millpond.tasks.email.templates import render_content
from millpond.tasks.errors import BrokerError, FinalError, MillpondError, RetryLater, TooLarge
from millpond.tasks.settings import Smtp

_log = logging.getLogger(__name__)

#: The waits before each attempt to record a sent mail in the ledger.
RECORD_WAITS_SECONDS = (0.0, 0.2, 1.0)

OpenInput = Callable[[str], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Mailer:
    """Sends the mails of one process. Its slots, which may be threads, share it.

    `open_input` opens the attachment at a storage URL.
    """

    settings: Smtp
    connections: SmtpConnections
    ledger: MailLedger
    open_input: OpenInput
    #: The memory for the attachments of all mails together: as much as one mail may have.
    budget: AttachmentBudget = field(init=False)

    def __post_init__(self) -> None:
        """Make the budget that all threads share, before two threads could each make one."""
        object.__setattr__(self, "budget", AttachmentBudget(self.settings.max_attachment_bytes))

    @property
    def claim_seconds(self) -> float:
        """The length of a claim, which must not end between its last renewal and the mail server's reply."""
        return max(60.0, 4 * self.settings.timeout_seconds)

    def send(self, job: SendEmail, task_id: str) -> Receipt:
        """Send the mail to the recipients for whom the mail server has not replied to an earlier run.

        Waits until the budget has room for the attachments. Raises `RetryLater` if a recipient was deferred,
        and `FinalError` if all were refused.
        """
        size = sum(self._measure_attachment(attachment.url) for attachment in job.attachments)
        with self.budget.reserve_bytes(size):
            return self._send_claimed(job, task_id)

    def _measure_attachment(self, url: str) -> int:
        """Return the size of an attachment in bytes; 0 if it cannot be opened."""
        with suppress(MillpondError, OSError, ValueError), self.open_input(url) as file:
            return file.seek(0, SEEK_END)
        return 0  # the error is raised when it is loaded

    def _send_claimed(self, job: SendEmail, task_id: str) -> Receipt:
        """Claim a mail in the ledger, send it, and return the receipt.

        A mail that was sent by an earlier delivery is not sent again. If an error is raised before the mail
        server has replied, the claim is given up.
        """
        owner, claimed_at = uuid4().hex, time.monotonic()
        claim = self._claim_mail(task_id, owner)
        message_id = make_message_id(task_id, self.settings.message_id_domain)
        if claim.state == "sent":
            return _make_receipt(message_id, claim.outcomes, duplicate=True)
        try:
            envelope = self._compose_envelope(job, task_id)
            pending = [address for address in envelope.recipients if address not in claim.outcomes]
            renew = partial(self._renew_claim, task_id, owner, claimed_at)
            replies = self.connections.send(envelope, pending, before_data=renew) if pending else SmtpResult()
        except BaseException:
            with suppress(BrokerError):
                self.ledger.record(task_id, owner, {}, sent=False)
            raise
        return self._record_replies(task_id, owner, envelope, claim.outcomes, replies)

    def _claim_mail(self, task_id: str, owner: str) -> Claim:
        """Claim a mail in the ledger, or renew its claim. Raises `RetryLater` if another delivery has it."""
        busy_reason = f"another delivery of mail {task_id} is sending it, or died while sending it"
        return claim_or_retry(
            self.ledger, task_id, owner, seconds=self.claim_seconds, busy_reason=busy_reason
        )

    def _renew_claim(self, task_id: str, owner: str, claimed_at: float) -> None:
        """Renew a claim if a quarter of its time has passed. Raises `RetryLater` if it was lost."""
        is_old = time.monotonic() - claimed_at > self.claim_seconds / 4
        if is_old and self._claim_mail(task_id, owner).state != "taken":
            raise RetryLater(f"another delivery of mail {task_id} overtook this one")

    def _compose_envelope(self, job: SendEmail, task_id: str) -> Envelope:
        """Render and compose the mail, with its attachments. Return it with its sender and recipients."""
        return compose_mail(
            job,
            render_content(job, folder=self.settings.templates),
            self._load_attachments(job),
            task_id=task_id,
            domain=self.settings.message_id_domain,
            now=datetime.now(UTC),
        )

    def _load_attachments(self, job: SendEmail) -> list[LoadedAttachment]:
        """Return the attachments with their content. Raises `TooLarge` if they are too large together."""
        loaded = []
        remaining = self.settings.max_attachment_bytes
        for attachment in job.attachments:
            with self.open_input(attachment.url) as file:
                data = file.read(remaining + 1)
            if len(data) > remaining:
                raise TooLarge(
                    f"the attachments are over {self.settings.max_attachment_bytes} bytes together, with "
                    f"{attachment.url}: send a link, or raise MILLPOND_SMTP__MAX_ATTACHMENT_BYTES"
                )
            remaining -= len(data)
            loaded.append(LoadedAttachment(attachment.file_name, attachment.content_type, data))
        return loaded

    def _record_replies(
        self,
        task_id: str,
        owner: str,
        envelope: Envelope,
        earlier_outcomes: Mapping[str, str],
        replies: SmtpResult,
    ) -> Receipt:
        """Record the mail server's replies in the ledger, and return the receipt.

        Raises `RetryLater` if a recipient was deferred, and `FinalError` if all were refused.
        """
        outcomes = {**dict.fromkeys(replies.accepted, ACCEPTED), **replies.refused}
        if replies.deferred:
            self._write_to_ledger(lambda: self.ledger.record(task_id, owner, outcomes, sent=False), task_id)
            raise RetryLater(
                f"{len(replies.deferred)} of {len(envelope.recipients)} recipients were deferred: "
                f"{_list_refusals(replies.deferred)}"
            )
        receipt = _make_receipt(envelope.message_id, {**earlier_outcomes, **outcomes})
        if not receipt.accepted:
            self._write_to_ledger(lambda: self.ledger.forget(task_id, owner), task_id)
            raise FinalError(f"every recipient was refused: {_list_refusals(receipt.refused)}")
        self._write_to_ledger(lambda: self.ledger.record(task_id, owner, outcomes, sent=True), task_id)
        return receipt

    def _write_to_ledger(self, write: Callable[[], None], task_id: str) -> None:
        """Call `write`, which writes to the ledger, up to three times.

        The last failure is logged and not raised: the mail was sent, so its task must not run again.
        """
        for wait_seconds in RECORD_WAITS_SECONDS:
            time.sleep(wait_seconds)
            try:
                return write()
            except BrokerError as error:
                reason = error
        _log.warning(
            "mail %s was sent and cannot be recorded in the ledger; a redelivery would send it again: %s",
            task_id,
            reason,
        )
        return None


def _make_receipt(message_id: str, outcomes: Mapping[str, str], *, duplicate: bool = False) -> Receipt:
    """Return the receipt for these outcomes, as the ledger has them, by address."""
    return Receipt(
        message_id=message_id,
        accepted=tuple(address for address, outcome in outcomes.items() if outcome == ACCEPTED),
        refused={address: outcome for address, outcome in outcomes.items() if outcome != ACCEPTED},
        duplicate=duplicate,
    )


def _list_refusals(replies: Mapping[str, str]) -> str:
    """Return the first ten addresses with their replies, as text."""
    shown = [f"{address}: {reply}" for address, reply in list(replies.items())[:10]]
    return "; ".join(shown) + ("; …" if len(replies) > 10 else "")
