"""The audit: one line for each change that a person made, by page or by command."""

import getpass
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from socket import gethostname

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import audit_key
from millpond.broker.message_names import replace_unprintable
from millpond.broker.scripts import script

logger = logging.getLogger("millpond.audit")

#: The number of changes that are kept.
KEPT = 1_000


@dataclass(frozen=True)
class Change:
    """One change by a person. Its time is ms by the server's clock."""

    at_ms: int
    user: str
    action: str


def record_change(store: Store, user: str, action: str) -> None:
    """Record a change in Redis and in the log of this process.

    Characters that cannot be printed are replaced, so each change is one line.
    """
    user, action = replace_unprintable(user), replace_unprintable(action)
    logger.info("%s: %s", user, action)
    with translate_errors("recording a change"):
        script("record_change").run(store.client, (audit_key(store.prefix),), (user, action, KEPT))


def record_command(store: Store, action: str) -> None:
    """Record a change made by a command on this host."""
    record_change(store, f"{getpass.getuser()}@{gethostname()} by command", action)


def read_changes(store: Store, *, limit: int = 20) -> Iterator[Change]:
    """Yield at most `limit` changes, the newest first."""
    with translate_errors("reading the audit"):
        entries = store.client.xrevrange(audit_key(store.prefix), count=limit)
    for entry, fields in entries:
        at_ms = int(entry.split(b"-")[0])
        yield Change(at_ms, fields[b"who"].decode(errors="replace"), fields[b"what"].decode(errors="replace"))
