"""The mail ledger: the record of sent mails, so that a mail delivered twice by the broker is sent once.

Two steps, each one script on one key. Before the first byte goes to the mail server, `claim` writes the state
*sending*, with an owner that is new for each delivery and an end by the server's clock. After the mail server
has replied, `record` writes its reply for each recipient, and *sent* once every recipient has one.

- A second delivery that finds *sent* sends nothing and returns the recorded replies.
- A second delivery that finds *sending* is retried when the claim ends.
- A claim that ended was left by a worker that died. The next delivery takes it over and sends to the
  recipients without a reply. **This is at least once.** No ledger can close the window between the moment
  when the mail server takes the message and `record`. A worker that dies in it leaves *sending*, and the mail
  is sent again with the same Message-ID, by which a receiver recognises it (RFC 1047 describes this gap). The
  same holds when the connection breaks before the server's last reply. The alternative, giving up such a
  mail, would lose mails that were never sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from millpond.broker.connection import Store, translate_errors
from millpond.broker.scripts import script

#: The outcome of an address for which the mail server took the message; any other value is its refusal.
ACCEPTED = "+"

ClaimState = Literal["taken", "busy", "sent"]
_STATES: tuple[ClaimState, ...] = ("taken", "busy", "sent")


@dataclass(frozen=True)
class Claim:
    """The result of a claim: `taken`, `busy` for `wait_seconds`, or `sent`. `outcomes` are by address."""

    state: ClaimState
    wait_seconds: float = 0.0
    outcomes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MailLedger:
    """The ledger in the broker's server. An entry is kept for `ttl_seconds` after its last change.

    Every method raises `BrokerAway` or `BrokerError`.
    """

    store: Store
    ttl_seconds: int

    def claim(self, key: str, owner: str, *, seconds: float) -> Claim:
        """Claim a mail for `seconds`, or renew the owner's claim."""
        with translate_errors("asking the mail ledger"):
            state, wait_ms, *flat = script("mail_claim", __package__).run(
                self.store.client, [self._ledger_key(key)], [owner, int(seconds * 1000), self.ttl_seconds]
            )
        words = [word.decode() for word in flat]
        return Claim(_STATES[state], wait_ms / 1000, dict(zip(words[::2], words[1::2], strict=True)))

    def record(self, key: str, owner: str, outcomes: Mapping[str, str], *, sent: bool) -> None:
        """Record the mail server's reply for each address and end the claim."""
        pairs = [word for pair in outcomes.items() for word in pair]
        self._write_entry(key, owner, "sent" if sent else "open", pairs)

    def forget(self, key: str, owner: str) -> None:
        """Drop the entry of a mail that no recipient got: it can be sent once its fault is corrected."""
        self._write_entry(key, owner, "forget", [])

    def _write_entry(self, key: str, owner: str, mode: str, pairs: list[str]) -> None:
        """Write to the entry of a mail, if `owner` still has its claim."""
        with translate_errors("writing the mail ledger"):
            script("mail_record", __package__).run(
                self.store.client, [self._ledger_key(key)], [owner, self.ttl_seconds, mode, *pairs]
            )

    def _ledger_key(self, mail: str) -> str:
        return f"{self.store.prefix}millpond:mail:{{{mail}}}"
