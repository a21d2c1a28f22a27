"""JSON for machines: queues, pools, batches, readiness, the demand on a pool for KEDA, and the metrics."""

import json
from dataclasses import asdict
from typing import Any

import prometheus_client
from tornado.web import HTTPError

from millpond.broker import server
from millpond.broker.batches import record
from millpond.monitor import json_views, metrics, snapshot
from millpond.monitor.diagnosis import diagnose_all
from millpond.monitor.pages.handler import PageHandler
from millpond.monitor.pages.queues import find_queue
from millpond.monitor.scaling import read_demand


class JsonHandler(PageHandler):
    """A handler whose responses are JSON, errors included."""

    def send_json(self, value: Any) -> None:
        """Send a value as JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Respond to an error with `{"error": ...}`. Flower responds to a 401, by requesting a login."""
        if status_code == 401:
            super().write_error(status_code, **kwargs)
            return
        error = (kwargs.get("exc_info") or (None, None))[1]
        message = error.get_message() if isinstance(error, HTTPError) else None
        self.set_status(status_code)
        self.send_json({"error": message or "internal error: see Flower's log"})


class ReadyJson(JsonHandler):
    """Readiness: the broker replies and takes writes. `/healthcheck` shows only that Flower runs."""

    async def get(self) -> None:
        """Respond with 200, or with 503 and the reason."""
        refusal = await self.call_broker(server.find_write_refusal, self.store)
        if refusal is not None:
            raise HTTPError(503, f"the broker refuses writes: {refusal}")
        self.send_json({"ready": True})


class PoolsJson(JsonHandler):
    """The pools."""

    async def get(self) -> None:
        """Respond with a list of pools."""
        current = await self.call_broker(snapshot.read_snapshot, self.store, self.pools_table)
        diagnoses = await self.call_broker(diagnose_all, self.store, current)
        self.send_json(list(map(json_views.pool_json, current.pools, diagnoses)))


class QueuesJson(JsonHandler):
    """The queues."""

    async def get(self) -> None:
        """Respond with a list of queues."""
        views = await self.call_broker(snapshot.read_queue_views, self.store, self.pools_table)
        self.send_json([json_views.queue_json(view) for view in views])


class QueueJson(JsonHandler):
    """One queue: `depth` over all priorities, `oldest_seconds`, limits, counters, rates."""

    async def get(self, queue: str) -> None:
        """Respond with the queue, or 404."""
        views = await self.call_broker(snapshot.read_queue_views, self.store, self.pools_table)
        self.send_json(json_views.queue_json(find_queue(views, queue)))


class BatchesJson(JsonHandler):
    """The batches opened last."""

    async def get(self) -> None:
        """Respond with a list of batches, the newest first."""
        summaries = await self.call_broker(lambda: list(record.read_batches(self.store)))
        self.send_json([json_views.batch_json(summary) for summary in summaries])


class ScalingJson(JsonHandler):
    """The demand on one pool, for KEDA's scaler `metrics-api`: two numbers, never null."""

    async def get(self, pool: str) -> None:
        """Respond with `tasks` and `oldest_seconds`, or 404."""
        if pool not in self.pools_table.pools:
            raise HTTPError(404, f"no pool is named {pool!r}")
        self.send_json(asdict(await self.call_broker(read_demand, self.store, self.pools_table, pool)))


class MetricsText(PageHandler):
    """Prometheus metrics: Flower's of events, then Millpond's of queues, pools and tasks."""

    async def get(self) -> None:
        """Respond with the metrics, also while the broker is unreachable: a metric shows that."""
        self.application.purge_offline_worker_metrics()
        millpond_metrics = await self.call_broker(metrics.read_metrics, self.store, self.pools_table)
        self.set_header("Content-Type", prometheus_client.CONTENT_TYPE_LATEST)
        self.finish(prometheus_client.generate_latest() + millpond_metrics)
