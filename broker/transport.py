"""The transport under the name that Celery's settings have: `millpond.broker.transport:Transport`."""

from millpond.broker.celery.transport import SentinelTransport, Transport

__all__ = ["SentinelTransport", "Transport"]
