"""Name a connection by its URL in logs and banners, as stock Celery does."""

from typing import Any

from kombu import Connection as KombuConnection

_SCHEMES = {
    "millpond.broker.transport:Transport": "redis",
    "millpond.broker.transport:SentinelTransport": "sentinel",
}


class Connection(KombuConnection):
    """kombu's connection; with a transport of one's own, kombu would name that one's class for the scheme."""

    def as_uri(self, include_password: bool = False, **options: Any) -> str:
        """Return the URL of what this connects to, by default without its password."""
        url = str(super().as_uri(include_password, **options))
        transport, found, rest = url.partition("://")
        scheme = _SCHEMES.get(transport, transport)
        return f"{'rediss' if scheme == 'redis' and self.ssl else scheme}{found}{rest}"
