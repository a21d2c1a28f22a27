"""The audit: one line for each change that a person made, by page or by command."""

import getpass
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from socket import gethostname

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import audit_key
from millpond.broker.scripts import script

logger = logging.getLogger("millpond.audit")

#: Lines kept.
KEPT = 1_000


@dataclass(frozen=True)
class Change:
    """One change: the user (`who`), the change (`what`), and its time in ms by the server's clock."""

    at_ms: int
    who: str
    what: str


def record(store: Store, who: str, what: str) -> None:
    """Record a change in Redis and in the log of this process, always as one line."""
    who, what = _one_line(who), _one_line(what)
    logger.info("%s: %s", who, what)
    with translate_errors("recording a change"):
        script("record_change").run(store.client, (audit_key(store.prefix),), (who, what, KEPT))


def record_command(store: Store, what: str) -> None:
    """Record a change made by a command on this host."""
    record(store, f"{getpass.getuser()}@{gethostname()} by command", what)


def recent(store: Store, *, limit: int = 20) -> Iterator[Change]:
    """Yield the latest changes, the newest first."""
    with translate_errors("reading the audit"):
        found = store.client.xrevrange(audit_key(store.prefix), count=limit)
    for entry, fields in found:
        at_ms = int(entry.split(b"-")[0])
        yield Change(at_ms, fields[b"who"].decode(errors="replace"), fields[b"what"].decode(errors="replace"))


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
