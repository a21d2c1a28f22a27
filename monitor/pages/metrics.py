"""Answer Prometheus: Flower's metrics of events, then Millpond's of queues, pools and tasks."""

import prometheus_client

from millpond.broker.errors import BrokerError
from millpond.monitor import metrics, snapshot
from millpond.monitor.pages.handler import Handler


class Metrics(Handler):
    """Expose the metrics, to those who may see the pages."""

    async def get(self) -> None:
        """Answer even when the broker is away, and say so in a metric."""
        self.application.purge_offline_worker_metrics()
        ours = await self.ask(self._written)
        self.set_header("Content-Type", prometheus_client.CONTENT_TYPE_LATEST)
        self.finish(prometheus_client.generate_latest() + ours)

    def _written(self) -> bytes:
        try:
            return metrics.exposition(snapshot.read(self.store, self.table))
        except BrokerError as error:
            return metrics.exposition(error)
