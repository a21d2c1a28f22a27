"""Make tokens, and find the principal of the token that a request has. Only hashes of tokens are stored.

The id of every task of a restricted token begins with the token's name and a colon, and its unique keys with
the name and a slash. A token's name has neither character, so no two tokens share an id or a key.

A token is 256 random bits, so one round of SHA-256 hides it as well as a slow hash would.
"""

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256

from millpond.broker.message import new_id
from millpond.producer.message import NAME_LENGTH
from millpond.tasks.settings import GatewayToken


@dataclass(frozen=True)
class Principal:
    """The sender of a request: its token's name, kinds and queues (names or patterns), and rights."""

    name: str
    kinds: tuple[str, ...]
    queues: tuple[str, ...] = ()
    rights: tuple[str, ...] = ()

    def may_send(self, kind: str) -> bool:
        """True if this principal may send a kind."""
        return self.is_unrestricted or any(fnmatchcase(kind, pattern) for pattern in self.kinds)

    def may_name(self, queue: str) -> bool:
        """True if this principal may name a queue that is not its kind's own."""
        return self.is_unrestricted or any(fnmatchcase(queue, pattern) for pattern in self.queues)

    def has_right(self, right: str) -> bool:
        """True if this principal has a right: "shed" or "priority"."""
        return self.is_unrestricted or right in self.rights

    def owns_task(self, task_id: str) -> bool:
        """True if a task's id is in the name space of this principal; an unrestricted one owns every task."""
        return self.is_unrestricted or task_id.startswith(f"{self.name}:")

    def new_task_id(self) -> str:
        """Return a new id in the name space of this principal."""
        return new_id() if self.is_unrestricted else f"{self.name}:{new_id()}"

    def namespaced_key(self, key: str | None) -> str | None:
        """Return a unique key, moved into the name space of this principal. Return None for None.

        A key that would become too long for a message is replaced by its hash.
        """
        if key is None or self.is_unrestricted:
            return key
        is_short = len(self.name) + 1 + len(key) <= NAME_LENGTH
        return f"{self.name}/{key if is_short else sha256(key.encode()).hexdigest()}"

    @property
    def is_unrestricted(self) -> bool:
        """True if this principal may send every kind, which is also the right to everything else."""
        return "*" in self.kinds


#: The principal of every request if no token is configured, which is on loopback only.
ANONYMOUS = Principal("anybody", ("*",))


def new_token() -> str:
    """Return a new token. Its prefix lets scanners for secrets recognize it."""
    return f"millpond_{secrets.token_urlsafe(32)}"


def hash_token(token: str) -> str:
    """Return the hash of a token, as the settings have it."""
    return f"sha256:{sha256(token.encode()).hexdigest()}"


def find_principal(tokens: Sequence[GatewayToken], presented: str) -> Principal | None:
    """Return the principal of the token that a request presents, None if the token is unknown.

    The time that this takes does not depend on the presented token.
    """
    principal = None
    presented_hash = hash_token(presented)
    for token in tokens:
        if hmac.compare_digest(token.hash, presented_hash):
            principal = Principal(token.name, token.kinds, token.queues, token.rights)
    return principal
