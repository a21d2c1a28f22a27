"""Say what the mail body asks of a ledger, and keep one in memory for bodies that are called by hand.

The protocol, and the one window that it leaves open, are described where it is stored: `broker/ledger.py`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from millpond.broker.ledger import ACCEPTED, Claim


class Ledger(Protocol):
    """Remember which mails were sent, and to whom."""

    def claim(self, key: str, owner: str, *, seconds: float) -> Claim:
        """Claim a mail for one delivery, or renew the owner's claim."""

    def record(self, key: str, owner: str, outcomes: Mapping[str, str], *, sent: bool) -> None:
        """Write down what the mail server said to each address, and end the claim."""

    def forget(self, key: str, owner: str) -> None:
        """Drop the entry of a mail that nobody took."""


@dataclass
class _Entry:
    owner: str = ""
    ends: float = 0.0
    sent: bool = False
    outcomes: dict[str, str] = field(default_factory=dict)


class LedgerInMemory:
    """Keep the ledger of one process, for as long as it lives."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = Lock()
        self._clock = clock

    def claim(self, key: str, owner: str, *, seconds: float) -> Claim:
        """Claim a mail for `seconds`, or renew the owner's claim."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            now = self._clock()
            if entry.sent:
                return Claim("sent", outcomes=dict(entry.outcomes))
            if entry.owner not in ("", owner) and entry.ends > now:
                return Claim("busy", entry.ends - now, dict(entry.outcomes))
            entry.owner, entry.ends = owner, now + seconds
            return Claim("taken", outcomes=dict(entry.outcomes))

    def record(self, key: str, owner: str, outcomes: Mapping[str, str], *, sent: bool) -> None:
        """Write down what the mail server said to each address, and end the claim."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            for address, outcome in outcomes.items():
                if entry.outcomes.get(address) != ACCEPTED:
                    entry.outcomes[address] = outcome
            entry.sent = entry.sent or sent
            if entry.owner == owner or sent:
                entry.owner = ""

    def forget(self, key: str, owner: str) -> None:
        """Drop the entry of a mail that nobody took."""
        with self._lock:
            if key in self._entries and self._entries[key].owner == owner:
                del self._entries[key]
