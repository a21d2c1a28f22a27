"""Deliver one mail: claim it in the ledger, make its bytes, hand them over, write down who has it.

Everything a delivery needs is passed in, so a test calls it with a ledger of its own and no settings.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import BinaryIO
from uuid import uuid4

from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.conversation import Delivery
from millpond.tasks.email.ledger import ACCEPTED, Claim, MailLedger
from millpond.tasks.email.message import Envelope, Loaded, compose, message_id_of
from millpond.tasks.email.receipt import Receipt
from millpond.tasks.email.smtp import Shelf
from millpond.tasks.email.templates import content_of
from millpond.tasks.errors import BrokerError, FinalError, RetryLater, TooLarge
from millpond.tasks.settings import Smtp

_log = logging.getLogger(__name__)

#: How often, and after which waits, a delivery that has sent tries to say so in the ledger.
RECORD_WAITS_SECONDS = (0.0, 0.2, 1.0)

OpenInput = Callable[[str], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Post:
    """Hold what the deliveries of one process share; attachments are read by `open_input`."""

    settings: Smtp
    shelf: Shelf
    ledger: MailLedger
    open_input: OpenInput

    @property
    def claim_seconds(self) -> float:
        """Return how long a claim lasts: longer than from its last renewal to the server's answer."""
        return max(60.0, 4 * self.settings.timeout_seconds)

    def deliver(self, job: SendEmail, task_id: str) -> Receipt:
        """Send the mail to whoever lacks it; raise `RetryLater` if some may get it later, or `FinalError`."""
        owner, claimed = uuid4().hex, time.monotonic()
        claim = self._claim(task_id, owner)
        message_id = message_id_of(task_id, self.settings.message_id_domain)
        if claim.state == "sent":
            return _receipt(message_id, claim.outcomes, duplicate=True)
        try:
            envelope = self._envelope(job, task_id)
            pending = [address for address in envelope.recipients if address not in claim.outcomes]
            keep = partial(self._keep, task_id, owner, claimed)
            delivery = self.shelf.send(envelope, pending, before_data=keep) if pending else Delivery()
        except BaseException:
            with suppress(BrokerError):
                self.ledger.record(task_id, owner, {}, sent=False)
            raise
        return self._settle(task_id, owner, envelope, claim.outcomes, delivery)

    def _claim(self, task_id: str, owner: str) -> Claim:
        try:
            claim = self.ledger.claim(task_id, owner, seconds=self.claim_seconds)
        except BrokerError as error:
            raise RetryLater(f"nothing was sent: {error}") from error
        if claim.state == "busy":
            raise RetryLater(
                f"another delivery of mail {task_id} is sending it, or died at it",
                after_seconds=claim.wait_seconds + 0.1,
            )
        return claim

    def _keep(self, task_id: str, owner: str, claimed: float) -> None:
        """Renew a claim that has grown old, before the message is committed; stop if it was lost."""
        if (
            time.monotonic() - claimed > self.claim_seconds / 4
            and self._claim(task_id, owner).state != "taken"
        ):
            raise RetryLater(f"another delivery of mail {task_id} overtook this one")

    def _envelope(self, job: SendEmail, task_id: str) -> Envelope:
        return compose(
            job,
            content_of(job, folder=self.settings.templates),
            self._attachments(job),
            task_id=task_id,
            domain=self.settings.message_id_domain,
            now=datetime.now(UTC),
        )

    def _attachments(self, job: SendEmail) -> list[Loaded]:
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
            loaded.append(Loaded(each.file_name, each.content_type, data))
        return loaded

    def _settle(
        self, task_id: str, owner: str, envelope: Envelope, before: Mapping[str, str], delivery: Delivery
    ) -> Receipt:
        outcomes = {**dict.fromkeys(delivery.accepted, ACCEPTED), **delivery.refused}
        if delivery.put_off:
            self._record(lambda: self.ledger.record(task_id, owner, outcomes, sent=False), task_id)
            raise RetryLater(
                f"{len(delivery.put_off)} of {len(envelope.recipients)} recipients were put off: "
                f"{_listed(delivery.put_off)}"
            )
        settled = {**before, **outcomes}
        receipt = _receipt(envelope.message_id, settled)
        if not receipt.accepted:
            self._record(lambda: self.ledger.forget(task_id, owner), task_id)
            raise FinalError(f"every recipient was refused: {_listed(receipt.refused)}")
        self._record(lambda: self.ledger.record(task_id, owner, outcomes, sent=True), task_id)
        return receipt

    def _record(self, write: Callable[[], None], task_id: str) -> None:
        """Write to the ledger; if it stays away, go on: the mail is sent and must not be sent again."""
        for wait in RECORD_WAITS_SECONDS:
            time.sleep(wait)
            try:
                return write()
            except BrokerError as error:
                reason = error
        _log.warning(
            "mail %s: the ledger cannot be told how it went, a redelivery repeats it: %s",
            task_id,
            reason,
        )
        return None


def _receipt(message_id: str, outcomes: Mapping[str, str], *, duplicate: bool = False) -> Receipt:
    return Receipt(
        message_id=message_id,
        accepted=tuple(address for address, outcome in outcomes.items() if outcome == ACCEPTED),
        refused={address: outcome for address, outcome in outcomes.items() if outcome != ACCEPTED},
        duplicate=duplicate,
    )


def _listed(refused: Mapping[str, str]) -> str:
    shown = [f"{address}: {answer}" for address, answer in list(refused.items())[:10]]
    return "; ".join(shown) + ("; …" if len(refused) > 10 else "")
