"""Remember which mails were sent, so that one that the broker delivers twice is sent once.

Two steps, each one script on one key. Before the first byte goes to the mail server, `claim` writes the
state *sending*, with an owner of its own for each delivery and an end on the server's clock. After the mail
server has answered, `record` writes what it said to each recipient, and *sent* once all are settled.

- A second delivery that finds *sent* sends nothing and gives back what was recorded.
- One that finds *sending* comes back when the claim ends.
- A claim that has ended was left by a worker that died: the next delivery takes it over and sends to whoever
  is not settled. **This is at least once.** The one window that no ledger can close lies between the mail
  server taking the message and `record`: a worker that dies there leaves *sending*, and the mail is sent
  again, with the same Message-ID, by which a receiver can tell (RFC 1047 describes this gap). So it is
  where the connection breaks before the server's last answer. The other choice, to give up such a mail,
  would lose those that were never sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from millpond.broker.connection import Store, clear_errors
from millpond.broker.keys import mail_key
from millpond.broker.scripts import script

#: The outcome of an address that the mail server has taken the message for; any other is its refusal.
ACCEPTED = "+"

State = Literal["taken", "busy", "sent"]
_STATES: tuple[State, ...] = ("taken", "busy", "sent")


@dataclass(frozen=True)
class Claim:
    """Say what a claim found: `taken`, `busy` for a while, or `sent`; and what is settled so far."""

    state: State
    wait_seconds: float = 0.0
    outcomes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MailLedger:
    """Keep the ledger in the broker's server; an entry lasts `ttl_seconds` from its last change."""

    store: Store
    ttl_seconds: int

    def claim(self, key: str, owner: str, *, seconds: float) -> Claim:
        """Claim a mail for `seconds`, or renew the owner's claim; raise `BrokerAway`."""
        with clear_errors("asking the mail ledger"):
            state, wait_ms, *flat = script("mail_claim").run(
                self.store.client, [self._key(key)], [owner, int(seconds * 1000), self.ttl_seconds]
            )
        words = [word.decode() for word in flat]
        return Claim(_STATES[state], wait_ms / 1000, dict(zip(words[::2], words[1::2], strict=True)))

    def record(self, key: str, owner: str, outcomes: Mapping[str, str], *, sent: bool) -> None:
        """Write down what the mail server said to each address, and end the claim; raise `BrokerAway`."""
        pairs = [word for pair in outcomes.items() for word in pair]
        self._write(key, owner, "sent" if sent else "open", pairs)

    def forget(self, key: str, owner: str) -> None:
        """Drop the entry, for a mail that nobody took, so that it can be sent once its fault is corrected."""
        self._write(key, owner, "forget", [])

    def _write(self, key: str, owner: str, mode: str, pairs: list[str]) -> None:
        with clear_errors("writing the mail ledger"):
            script("mail_record").run(
                self.store.client, [self._key(key)], [owner, self.ttl_seconds, mode, *pairs]
            )

    def _key(self, key: str) -> str:
        return mail_key(key, self.store.prefix)
