"""Flower's pages of the broker's queues, read from Millpond's store.

Flower's own class for a broker would parse the URL itself, and does not know all forms of it.
"""

from typing import Any

from flower.api.tasks import GetQueueLengths
from flower.views.broker import BrokerView

from millpond.broker.connection import Store
from millpond.broker.inspect.depth import read_depths


class BrokerQueues:
    """The broker object of Flower's pages. It reads a store."""

    def __init__(self, application: Any) -> None:
        self._store: Store = application.store
        self._loop = application.io_loop

    async def queues(self, names: list[str]) -> list[dict[str, Any]]:
        """Return the counts of these queues, with the names of the fields that Flower shows."""
        depths = await self._loop.run_in_executor(None, read_depths, self._store, list(names))
        return [
            {
                "name": depth.queue,
                "messages": depth.ready,
                "messages_ready": depth.ready,
                "messages_unacknowledged": depth.in_flight,
                "consumers": depth.consumers,
            }
            for depth in depths
        ]


class _StoreBroker:
    """Replaces Flower's broker object by `BrokerQueues`, in two of Flower's handlers."""

    application: Any

    def get_broker(self) -> BrokerQueues:
        """Return the broker object that Flower's page reads."""
        return BrokerQueues(self.application)


class Broker(_StoreBroker, BrokerView):
    """Flower's page of the broker."""


class QueueLengths(_StoreBroker, GetQueueLengths):
    """Flower's list of the lengths of queues."""
