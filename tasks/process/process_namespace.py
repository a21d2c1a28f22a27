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
        return ProcessNamespace(hash_text(BrokerURL.parse(url).without_login), hash_text(key_prefix))
    except BadBrokerUrl:
        return ANY


def configured_namespaces() -> tuple[ProcessNamespace, ...]:
    """Return the namespaces of the environment and millpond.toml: one, or those of a Celery application.

    If no broker is set, the application's are those that its processes have recorded on this host
    (`application_record.py`). If nothing is known of a broker, `ANY` is returned. The prefix is unknown if
    none is set: a worker with `--app`, or in Django, takes that of its application.
    """
    from millpond.tasks.configuration.toml_file import TomlFile, config_file
    from millpond.tasks.process.application_record import read_application

    try:
        path = config_file()
        in_file = TomlFile(path).values if path.is_file() else {}
    except SettingsError:
        in_file = {}
    url, prefix, app = (
        os.environ.get(f"MILLPOND_{name.upper()}", in_file.get(name))
        for name in ("broker_url", "key_prefix", "app")
    )
    if url:
        found: tuple[ProcessNamespace, ...] = (namespace_of(str(url).strip(), "")._replace(key_prefix=""),)
    else:
        found = read_application(str(app).strip()) if app else ()
    if prefix is not None:
        key_prefix = hash_text(str(prefix).strip())
        found = tuple(namespace._replace(key_prefix=key_prefix) for namespace in found if namespace.broker)
    return found or (ANY,)


def hash_text(text: str) -> str:
    """Return 16 hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
