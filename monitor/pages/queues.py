"""The pages of queues: their depth and limits, and changing limits, pausing and resuming."""

from typing import Any

from tornado.web import HTTPError

from millpond.broker import audit, limits, server
from millpond.broker.connection import Store
from millpond.broker.stats.history import HistoryCache
from millpond.monitor import snapshot
from millpond.monitor.diagnosis import Diagnosis, diagnose_all
from millpond.monitor.metrics import QUEUE_COUNTERS
from millpond.monitor.pages import sparkline
from millpond.monitor.pages.handler import PageHandler
from millpond.monitor.pages.limit_forms import LIMITS, OVERFLOWS, parse_limits
from millpond.monitor.snapshot import QueueView
from millpond.tasks.pools import PoolsTable


class QueuesPage(PageHandler):
    """The page of all queues."""

    async def get(self) -> None:
        """Render all queues with their sparklines, and the latest changes."""
        values = await self.call_broker(_read_queues_page, self.store, self.pools_table, self.history)
        self.render_page("queues.html", tab="queues", **values)


class QueuePage(PageHandler):
    """The page of one queue: counters, the last hour, limits, and diagnoses of its pools that are behind."""

    async def get(self, queue: str) -> None:
        """Render the queue. Responds 404 for an unknown one."""
        values = await self.call_broker(_read_queue_page, self.store, self.pools_table, self.history, queue)
        self.render_page(
            "queue.html", tab="queues", names=LIMITS, overflows=OVERFLOWS, counters=QUEUE_COUNTERS, **values
        )


class ChangeQueue(PageHandler):
    """Pause or resume one queue, or set its limits."""

    async def post(self, queue: str, action: str) -> None:
        """Make the change (`pause`, `resume` or `limits`), record it, and redirect to the page it came from.

        An empty field of the form unsets its limit. Responds 404 for an unknown queue.
        """
        self.require_change_right()
        find_queue(await self.call_broker(snapshot.read_queue_views, self.store, self.pools_table), queue)
        if action == "limits":
            changes = await self.call_broker(parse_limits, {limit: self.field(limit) for limit in LIMITS})
            message = f"The limits of {queue} are set."
            set_limits = ", ".join(
                f"{limit}={value}" for limit, value in changes.items() if value is not None
            )
            audit_text = f"set the limits of queue {queue}: {set_limits or 'all as in the pools table'}"
        else:
            changes = {"paused": True if action == "pause" else None}
            message, audit_text = f"{queue} is {action}d.", f"{action}d queue {queue}"
        await self.call_broker(limits.change_limits, self.store, queue, **changes)
        await self.record_change(audit_text)
        page = ("queues",) if self.field("back") == "list" else ("queue", queue)
        self.redirect_with_message(self.reverse_url(*page), message)


def find_queue(views: list[QueueView], name: str) -> QueueView:
    """Return the queue of this name. Raises `HTTPError` 404."""
    for view in views:
        if view.name == name:
            return view
    raise HTTPError(404, f"no queue is named {name!r}")


def _read_queues_page(store: Store, pools_table: PoolsTable, history: HistoryCache) -> dict[str, Any]:
    """Return the values of the template of all queues. Blocks on the broker."""
    views = snapshot.read_queue_views(store, pools_table)
    histories = history.samples([f"queue:{view.name}" for view in views])
    now_ms = server.server_time_ms(store)
    return {
        "views": views,
        "sparklines": {
            view.name: sparkline.level_bars(samples, "ready", now_ms=now_ms)
            for view, samples in zip(views, histories, strict=True)
        },
        "changes": list(audit.read_changes(store, limit=8)),
        "refusal": server.find_write_refusal(store),
    }


def _read_queue_page(
    store: Store, pools_table: PoolsTable, history: HistoryCache, queue: str
) -> dict[str, Any]:
    """Return the values of the template of one queue. Blocks on the broker. Raises `HTTPError` 404."""
    view = find_queue(snapshot.read_queue_views(store, pools_table), queue)
    [samples] = history.samples([f"queue:{queue}"])
    now_ms = server.server_time_ms(store)
    sparklines = {
        "ready": sparkline.level_bars(samples, "ready", now_ms=now_ms),
        "oldest": sparkline.level_bars(samples, "oldest_seconds", now_ms=now_ms),
        "in": sparkline.rate_bars(samples, "published", now_ms=now_ms),
        "out": sparkline.rate_bars(samples, "settled", "dead", now_ms=now_ms),
    }
    diagnoses = _diagnose_pools_of(store, pools_table, view) if view.depth.ready else []
    overrides = limits.read_overrides(store, queue)
    return {"view": view, "sparklines": sparklines, "overrides": overrides, "diagnoses": diagnoses}


def _diagnose_pools_of(store: Store, pools_table: PoolsTable, view: QueueView) -> list[Diagnosis]:
    """Return the diagnoses of those pools of a queue that are behind."""
    diagnoses = diagnose_all(store, snapshot.read_snapshot(store, pools_table))
    return [diagnosis for diagnosis in diagnoses if diagnosis.pool in view.pools and not diagnosis.is_calm]
