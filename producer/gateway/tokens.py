"""Make tokens, and tell who holds one: only their hashes are kept.

A token is 256 random bits, so one round of SHA-256 hides it as well as a slow hash would.
"""

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256

from millpond.tasks.settings import GatewayToken


@dataclass(frozen=True)
class Holder:
    """Name who asks, and the kinds that they may send, as names or patterns."""

    name: str
    kinds: tuple[str, ...]

    def may(self, kind: str) -> bool:
        """Say whether this holder may send a kind, and look at or cancel what is of it."""
        return self.may_all or any(fnmatchcase(kind, pattern) for pattern in self.kinds)

    @property
    def may_all(self) -> bool:
        """Say whether no kind is closed to this holder."""
        return "*" in self.kinds


#: Who asks where no token is configured, which is on loopback alone.
ANYBODY = Holder("anybody", ("*",))


def new_token() -> str:
    """Return a new token; its beginning lets scanners for secrets know it."""
    return f"millpond_{secrets.token_urlsafe(32)}"


def hashed(token: str) -> str:
    """Return what is kept of a token."""
    return f"sha256:{sha256(token.encode()).hexdigest()}"


def holder(tokens: Sequence[GatewayToken], presented: str) -> Holder | None:
    """Return who holds a token, None for nobody; takes as long whichever it is."""
    found = None
    given = hashed(presented)
    for token in tokens:
        if hmac.compare_digest(token.hash, given):
            found = Holder(token.name, token.kinds)
    return found
