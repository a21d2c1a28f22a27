"""The mail ledger: the record of sent mails, so that a task that is delivered twice sends its mail once.

There are two steps, each a script on one key. Before any byte goes to the mail server, `claim` writes the
state *sending*, with an owner, which is new for each delivery, and the end of the claim by the broker's
clock. After the mail server has replied, `record` writes its reply for each recipient, and *sent* once each
recipient has one.

- A second delivery that finds *sent* sends nothing, and returns the recorded replies.
- A second delivery that finds *sending* is retried when the claim ends.
- A worker that died leaves a claim that ends. The next delivery takes it over, and sends to the recipients
  without a reply. **So a mail is sent at least once.** A worker may die after the mail server has accepted
  the message and before `record`. Then the mail is sent again, with the same Message-ID, by which a receiver
  can recognize it. No ledger can prevent this (RFC 1047 describes it). The same happens if the connection
  breaks before the mail server's last reply. To give up such a mail would lose mails that were never sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from millpond.broker.connection import Store, translate_errors
from millpond.broker.scripts import script
from millpond.tasks.errors import BrokerError, RetryLater

#: The outcome of an address for which the mail server accepted the message. Any other value is its refusal.
ACCEPTED = "+"

ClaimState = Literal["taken", "busy", "sent"]
_STATES: tuple[ClaimState, ...] = ("taken", "busy", "sent")


@dataclass(frozen=True)
class Claim:
    """The result of a claim: the mail is `taken` by this delivery, `busy` with another, or was `sent`.

    `wait_seconds` is the time until the claim of another delivery ends. `outcomes` has the mail server's
    reply so far by address.
    """

    state: ClaimState
    wait_seconds: float = 0.0
    outcomes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MailLedger:
    """The ledger on the broker's server. An entry is kept for `ttl_seconds` after its last change.

    The `key` of a mail is the id of its task. A chunk of a campaign, too, has an entry, without outcomes.
    Every method may raise `BrokerAway` or another `BrokerError`.
    """

    store: Store
    ttl_seconds: int

    def claim(self, key: str, owner: str, *, seconds: float) -> Claim:
        """Claim a mail for `seconds`, or renew the claim of this owner. Return the result."""
        with translate_errors("asking the mail ledger"):
            state, wait_ms, *flat = script("mail_claim", __package__).run(
                self.store.client, [self._redis_key(key)], [owner, int(seconds * 1000), self.ttl_seconds]
            )
        texts = [text.decode() for text in flat]
        return Claim(_STATES[state], wait_ms / 1000, dict(zip(texts[::2], texts[1::2], strict=True)))

    def record(self, key: str, owner: str, outcomes: Mapping[str, str], *, sent: bool) -> None:
        """Record the outcome of each address, and end the claim. `sent`: every recipient has an outcome."""
        pairs = [text for pair in outcomes.items() for text in pair]
        self._write_entry(key, owner, "sent" if sent else "open", pairs)

    def forget(self, key: str, owner: str) -> None:
        """Delete the entry of a mail that nobody received, so that it can be sent again."""
        self._write_entry(key, owner, "forget", [])

    def _write_entry(self, key: str, owner: str, mode: str, pairs: list[str]) -> None:
        """Record outcomes, and end the claim or delete the entry. `pairs`: addresses and outcomes in turn."""
        with translate_errors("writing the mail ledger"):
            script("mail_record", __package__).run(
                self.store.client, [self._redis_key(key)], [owner, self.ttl_seconds, mode, *pairs]
            )

    def _redis_key(self, key: str) -> str:
        """Return the key of an entry in Redis."""
        return f"{self.store.prefix}millpond:mail:{{{key}}}"


def claim_or_retry(ledger: MailLedger, key: str, owner: str, *, seconds: float, busy_reason: str) -> Claim:
    """Claim an entry for `seconds`, and return the result: taken, or sent by an earlier delivery.

    Raises `RetryLater` with `busy_reason` until another delivery's claim ends, and if the ledger cannot be
    reached.
    """
    try:
        claim = ledger.claim(key, owner, seconds=seconds)
    except BrokerError as error:
        raise RetryLater(f"nothing was sent: {error}") from error
    if claim.state == "busy":
        raise RetryLater(busy_reason, after_seconds=claim.wait_seconds + 0.1)
    return claim
