"""Flower's pages of the broker's queues, read through our connection: Flower would parse the URL itself."""

from typing import Any

from flower.api.tasks import GetQueueLengths
from flower.views.broker import BrokerView

from millpond.broker.connection import Store
from millpond.broker.inspect.depth import read_depths


class BrokerQueues:
    """The requests of Flower to a broker, made through a store."""

    def __init__(self, application: Any) -> None:
        self._store: Store = application.store
        self._loop = application.io_loop

    async def queues(self, names: list[str]) -> list[dict[str, Any]]:
        """Return the counts of each queue."""
        depths = await self._loop.run_in_executor(None, read_depths, self._store, list(names))
        return [
            {
                "name": each.queue,
                "messages": each.ready,
                "messages_ready": each.ready,
                "messages_unacknowledged": each.in_flight,
                "consumers": each.consumers,
            }
            for each in depths
        ]


class _ByOurConnection:
    application: Any

    def get_broker(self) -> BrokerQueues:
        """Return the broker in the form that Flower's page calls."""
        return BrokerQueues(self.application)


class Broker(_ByOurConnection, BrokerView):
    """Flower's page of the broker."""


class QueueLengths(_ByOurConnection, GetQueueLengths):
    """Flower's list of the lengths of queues."""
