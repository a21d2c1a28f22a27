"""The broker and the key prefix of a process, in the form in which its heartbeat file tells them.

They are hashes, so the file holds no secret and keeps its size. A health check compares them with those of
its own settings, which it reads without pydantic, because it runs every few seconds.
"""

import hashlib
import os
from typing import NamedTuple

from millpond.tasks.errors import BadBrokerUrl, SettingsError


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
        return ProcessNamespace(_hash(BrokerURL.parse(url).without_login), _hash(key_prefix))
    except BadBrokerUrl:
        return ANY


def configured_namespace() -> ProcessNamespace:
    """Return the namespace of the environment and millpond.toml; all is unknown if they name no broker.

    The prefix is unknown if none is set: a worker with `--app`, or in Django, takes that of its application.
    """
    from millpond.tasks.configuration.toml_file import TomlFile, config_file

    try:
        path = config_file()
        in_file = TomlFile(path).values if path.is_file() else {}
    except SettingsError:
        in_file = {}
    url, prefix = (
        os.environ.get(f"MILLPOND_{name.upper()}", in_file.get(name)) for name in ("broker_url", "key_prefix")
    )
    if not url:
        return ANY
    namespace = namespace_of(str(url).strip(), str(prefix or "").strip())
    return namespace._replace(key_prefix="") if prefix is None else namespace


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
