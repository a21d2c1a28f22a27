"""The transport, under the name that Celery's settings use: `millpond.broker.transport:Transport`."""

from millpond.broker.celery.transport import SentinelTransport, Transport

__all__ = ["SentinelTransport", "Transport"]
