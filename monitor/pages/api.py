"""Answer machines in JSON: the depth and the age of queues for KEDA and scripts, pools and batches."""

import json
from typing import Any

from tornado.web import HTTPError

from millpond.broker import server
from millpond.broker.batches import record
from millpond.monitor import json_views, snapshot
from millpond.monitor.pages.handler import Handler


class Json(Handler):
    """Answer in JSON, and tell what is wrong in JSON."""

    def answer(self, value: Any) -> None:
        """Send a value."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong in one line; a login is asked for as Flower does."""
        if status_code == 401:
            super().write_error(status_code, **kwargs)
            return
        error = (kwargs.get("exc_info") or (None, None))[1]
        message = error.get_message() if isinstance(error, HTTPError) else None
        self.set_status(status_code)
        self.answer({"error": message or "a fault in Millpond: look into Flower's log"})


class Ready(Json):
    """Tell whether the broker answers and takes writes; `/healthcheck` says only that Flower runs."""

    async def get(self) -> None:
        """Answer 200 when it does, else 503 and why not."""
        refusal = await self.ask(server.write_refusal, self.store)
        if refusal is not None:
            raise HTTPError(503, f"the broker refuses what is sent and settled: {refusal}")
        self.answer({"ready": True})


class Pools(Json):
    """Tell the pools."""

    async def get(self) -> None:
        """Answer with a list of pools."""
        seen = await self.ask(snapshot.read, self.store, self.table)
        self.answer([json_views.pool_object(view) for view in seen.pools])


class Queues(Json):
    """Tell the queues."""

    async def get(self) -> None:
        """Answer with a list of queues."""
        views = await self.ask(snapshot.queue_views, self.store, self.table)
        self.answer([json_views.queue_object(view) for view in views])


class Queue(Json):
    """Tell one queue: `depth` over all priorities, `oldest_seconds`, limits, counters, rates."""

    async def get(self, name: str) -> None:
        """Answer with the queue, or 404."""
        views = await self.ask(snapshot.queue_views, self.store, self.table)
        for view in views:
            if view.name == name:
                self.answer(json_views.queue_object(view))
                return
        raise HTTPError(404, f"no queue is named {name!r}")


class Batches(Json):
    """Tell the batches opened last."""

    async def get(self) -> None:
        """Answer with a list of batches, the newest first."""
        found = await self.ask(lambda: list(record.recent(self.store)))
        self.answer([json_views.batch_object(summary) for summary in found])
