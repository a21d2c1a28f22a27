"""JSON for machines: queues, pools, batches, readiness, the demand on a pool for KEDA, and the metrics."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import prometheus_client
from tornado.web import HTTPError

from millpond.broker import server
from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.monitor import json_views, metrics, snapshot
from millpond.monitor.diagnosis import diagnose_all
from millpond.monitor.pages.handler import PageHandler
from millpond.monitor.pages.queues import find_queue
from millpond.monitor.scaling import read_demand
from millpond.tasks.pools import PoolsTable


class JsonHandler(PageHandler):
    """A handler whose responses are JSON, errors included.

    `read` is one of the functions below. It is given the store, the pools table and the parts of the path.
    """

    read: Callable[..., Any]

    async def get(self, *path: str) -> None:
        """Respond with the value, or with the status of an `HTTPError` of the function."""
        self.send_json(await self.call_broker(self.read, self.store, self.pools_table, *path))

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


def read_ready(store: Store, _pools_table: PoolsTable) -> Any:
    """Return `ready` if the broker takes writes, else 503. `/healthcheck` shows only that Flower runs."""
    refusal = server.find_write_refusal(store)
    if refusal is not None:
        raise HTTPError(503, f"the broker refuses writes: {refusal}")
    return {"ready": True}


def read_pools(store: Store, pools_table: PoolsTable) -> Any:
    """Return a list of pools."""
    current = snapshot.read_snapshot(store, pools_table)
    return list(map(json_views.pool_json, current.pools, diagnose_all(store, current)))


def read_queues(store: Store, pools_table: PoolsTable) -> Any:
    """Return a list of queues."""
    return [json_views.queue_json(view) for view in snapshot.read_queue_views(store, pools_table)]


def read_queue(store: Store, pools_table: PoolsTable, queue: str) -> Any:
    """Return one queue: `depth` over all priorities, `oldest_seconds`, limits, counters, rates; or 404."""
    return json_views.queue_json(find_queue(snapshot.read_queue_views(store, pools_table), queue))


def read_batches(store: Store, _pools_table: PoolsTable) -> Any:
    """Return a list of the batches opened last, the newest first."""
    return [json_views.batch_json(summary) for summary in record.read_batches(store)]


def read_scaling(store: Store, pools_table: PoolsTable, pool: str) -> Any:
    """Return the demand on one pool, for KEDA's scaler `metrics-api`: two numbers, never null; or 404."""
    if pool not in pools_table.pools:
        raise HTTPError(404, f"no pool is named {pool!r}")
    return asdict(read_demand(store, pools_table, pool))


def json_handler(read: Callable[..., Any]) -> type[JsonHandler]:
    """Return the handler that responds with what a function returns."""
    return type(read.__name__, (JsonHandler,), {"read": staticmethod(read)})


class MetricsText(PageHandler):
    """Prometheus metrics: Flower's of events, then Millpond's of queues, pools and tasks."""

    async def get(self) -> None:
        """Respond with the metrics, also while the broker is unreachable: a metric shows that."""
        self.application.purge_offline_worker_metrics()
        millpond_metrics = await self.call_broker(metrics.read_metrics, self.store, self.pools_table)
        self.set_header("Content-Type", prometheus_client.CONTENT_TYPE_LATEST)
        self.finish(prometheus_client.generate_latest() + millpond_metrics)
