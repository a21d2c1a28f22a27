"""The broker and the key prefix of a process, in the form in which its heartbeat file tells them.

They are hashes, so the file holds no secret and keeps its size. A health check compares them with those of
its own settings, which it reads without pydantic, because it runs every few seconds.
"""

import hashlib
from typing import NamedTuple

from millpond.tasks.errors import BadBrokerUrl


class ProcessNamespace(NamedTuple):
    """The hashes of a broker's URL without login and options, and of a key prefix.

    An empty hash stands for one that is not known: it equals every other.
    """

    broker: str = ""
    key_prefix: str = ""

    def includes(self, broker: str, key_prefix: str) -> bool:
        """True unless the hashes of a process differ from these."""
        return (not self.broker or broker in ("", self.broker)) and (
            not self.key_prefix or key_prefix in ("", self.key_prefix)
        )


#: Every namespace.
ANY = ProcessNamespace()


def namespace_of(url: str, key_prefix: str) -> ProcessNamespace:
    """Return the namespace of a broker's URL and a prefix. Both are unknown if the URL is not valid."""
    from millpond.broker.url import BrokerURL

    try:
        return ProcessNamespace(hash_text(BrokerURL.parse(url).without_login), hash_text(key_prefix))
    except BadBrokerUrl:
        return ANY


def hash_text(text: str) -> str:
    """Return 16 hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
