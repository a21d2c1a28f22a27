"""The transport by the name that Celery is told: `millpond.broker.transport:Transport`."""

from millpond.broker.celery.transport import SentinelTransport, Transport

__all__ = ["SentinelTransport", "Transport"]
