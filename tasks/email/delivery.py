"""Send one mail: claim it in the ledger, compose it, submit it, record the replies.

Everything that this needs is passed in, so that a test needs no settings.
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

from millpond.tasks.email.attachment_room import AttachmentRoom
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.ledger import ACCEPTED, Claim, MailLedger
from millpond.tasks.email.message import Envelope, LoadedAttachment, compose_mail, message_id_of
from millpond.tasks.email.receipt import Receipt
from millpond.tasks.email.smtp_connections import SmtpConnections
from millpond.tasks.email.smtp_session import SmtpResult
from millpond.tasks.email.templates import render_content
from millpond.tasks.errors import BrokerError, FinalError, MillpondError, RetryLater, TooLarge
from millpond.tasks.settings import Smtp

_log = logging.getLogger(__name__)

#: The waits before each try to record a sent mail in the ledger.
RECORD_WAITS_SECONDS = (0.0, 0.2, 1.0)

OpenInput = Callable[[str], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Mailer:
    """Sends the mails of one process. `open_input` opens attachments."""

    settings: Smtp
    connections: SmtpConnections
    ledger: MailLedger
    open_input: OpenInput
    #: The room for the attachments of all mails that are sent at once: those of one of the largest.
    room: AttachmentRoom = field(init=False)

    @property
    def claim_seconds(self) -> float:
        """The length of a claim: longer than the time from its last renewal to the server's reply."""
        return max(60.0, 4 * self.settings.timeout_seconds)

    def send(self, job: SendEmail, task_id: str) -> Receipt:
        """Send the mail to the recipients without a reply so far.

        Raises `RetryLater` if a recipient was deferred, and `FinalError` if all were refused.
        """
        with self.room.reserve_bytes(sum(self._attachment_size(each.url) for each in job.attachments)):
            return self._send_claimed(job, task_id)

    def __post_init__(self) -> None:
        """Make the room that all threads share. Two threads could each make one at the first use."""
        object.__setattr__(self, "room", AttachmentRoom(self.settings.max_attachment_bytes))

    def _attachment_size(self, url: str) -> int:
        """Return the size of an attachment in bytes, 0 if it cannot be read here."""
        with suppress(MillpondError, OSError, ValueError), self.open_input(url) as file:
            return file.seek(0, SEEK_END)
        return 0  # opening it again raises the error

    def _send_claimed(self, job: SendEmail, task_id: str) -> Receipt:
        """Send a mail once the ledger has given this delivery the claim. Return the receipt."""
        owner, claimed = uuid4().hex, time.monotonic()
        claim = self._claim_mail(task_id, owner)
        message_id = message_id_of(task_id, self.settings.message_id_domain)
        if claim.state == "sent":
            return _make_receipt(message_id, claim.outcomes, duplicate=True)
        try:
            envelope = self._compose_envelope(job, task_id)
            pending = [address for address in envelope.recipients if address not in claim.outcomes]
            renew = partial(self._renew_claim, task_id, owner, claimed)
            answers = self.connections.send(envelope, pending, before_data=renew) if pending else SmtpResult()
        except BaseException:
            with suppress(BrokerError):
                self.ledger.record(task_id, owner, {}, sent=False)
            raise
        return self._record_answers(task_id, owner, envelope, claim.outcomes, answers)

    def _claim_mail(self, task_id: str, owner: str) -> Claim:
        """Claim the mail in the ledger. Raises `RetryLater` if another delivery has the claim."""
        try:
            claim = self.ledger.claim(task_id, owner, seconds=self.claim_seconds)
        except BrokerError as error:
            raise RetryLater(f"nothing was sent: {error}") from error
        if claim.state == "busy":
            raise RetryLater(
                f"another delivery of mail {task_id} is sending it, or died while sending it",
                after_seconds=claim.wait_seconds + 0.1,
            )
        return claim

    def _renew_claim(self, task_id: str, owner: str, claimed: float) -> None:
        """Renew an old claim before the message is committed. Raises `RetryLater` if it was lost."""
        if (
            time.monotonic() - claimed > self.claim_seconds / 4
            and self._claim_mail(task_id, owner).state != "taken"
        ):
            raise RetryLater(f"another delivery of mail {task_id} overtook this one")

    def _compose_envelope(self, job: SendEmail, task_id: str) -> Envelope:
        """Return the composed mail with its sender and recipients."""
        return compose_mail(
            job,
            render_content(job, folder=self.settings.templates),
            self._load_attachments(job),
            task_id=task_id,
            domain=self.settings.message_id_domain,
            now=datetime.now(UTC),
        )

    def _load_attachments(self, job: SendEmail) -> list[LoadedAttachment]:
        """Return the attachments with their content. Raises `TooLarge` over the limit of their sum."""
        loaded = []
        room = self.settings.max_attachment_bytes
        for each in job.attachments:
            with self.open_input(each.url) as file:
                data = file.read(room + 1)
            if len(data) > room:
                raise TooLarge(
                    f"the attachments are over {self.settings.max_attachment_bytes} bytes together, with "
                    f"{each.url}: send a link, or raise MILLPOND_SMTP__MAX_ATTACHMENT_BYTES"
                )
            room -= len(data)
            loaded.append(LoadedAttachment(each.file_name, each.content_type, data))
        return loaded

    def _record_answers(
        self,
        task_id: str,
        owner: str,
        envelope: Envelope,
        earlier_outcomes: Mapping[str, str],
        answers: SmtpResult,
    ) -> Receipt:
        """Record the mail server's replies in the ledger and return the receipt.

        Raises `RetryLater` if a recipient was deferred, and `FinalError` if all were refused.
        """
        outcomes = {**dict.fromkeys(answers.accepted, ACCEPTED), **answers.refused}
        if answers.deferred:
            self._write_to_ledger(lambda: self.ledger.record(task_id, owner, outcomes, sent=False), task_id)
            raise RetryLater(
                f"{len(answers.deferred)} of {len(envelope.recipients)} recipients were deferred: "
                f"{_list_refusals(answers.deferred)}"
            )
        settled = {**earlier_outcomes, **outcomes}
        receipt = _make_receipt(envelope.message_id, settled)
        if not receipt.accepted:
            self._write_to_ledger(lambda: self.ledger.forget(task_id, owner), task_id)
            raise FinalError(f"every recipient was refused: {_list_refusals(receipt.refused)}")
        self._write_to_ledger(lambda: self.ledger.record(task_id, owner, outcomes, sent=True), task_id)
        return receipt

    def _write_to_ledger(self, write: Callable[[], None], task_id: str) -> None:
        """Write to the ledger.

        A failure is logged, not raised: the mail is sent and must not be sent again.
        """
        for wait in RECORD_WAITS_SECONDS:
            time.sleep(wait)
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
    """Return the receipt for these replies by address."""
    return Receipt(
        message_id=message_id,
        accepted=tuple(address for address, outcome in outcomes.items() if outcome == ACCEPTED),
        refused={address: outcome for address, outcome in outcomes.items() if outcome != ACCEPTED},
        duplicate=duplicate,
    )


def _list_refusals(refused: Mapping[str, str]) -> str:
    shown = [f"{address}: {answer}" for address, answer in list(refused.items())[:10]]
    return "; ".join(shown) + ("; …" if len(refused) > 10 else "")
