"""Show the queues, and change a queue's limits, pause it and let it go on."""

from typing import Any

from tornado.web import HTTPError

from millpond.broker import audit, limits, server
from millpond.broker.connection import Store
from millpond.broker.stats.history import HistoryCache
from millpond.monitor import snapshot, sparkline
from millpond.monitor.limit_forms import LIMITS, OVERFLOWS, parsed
from millpond.monitor.pages.handler import Handler
from millpond.monitor.snapshot import QueueView
from millpond.tasks.pools import Table


class Queues(Handler):
    """Show every queue on one page."""

    async def get(self) -> None:
        """Render the queues as they are now."""
        seen = await self.ask(_all, self.store, self.table, self.past)
        self.show("queues.html", tab="queues", **seen)


class Queue(Handler):
    """Show one queue with its counters, its last hour and its limits."""

    async def get(self, name: str) -> None:
        """Render the queue, or 404."""
        seen = await self.ask(_one, self.store, self.table, self.past, name)
        self.show("queue.html", tab="queues", names=LIMITS, overflows=OVERFLOWS, **seen)


class Change(Handler):
    """Change one queue."""

    async def post(self, name: str, what: str) -> None:
        """Pause it, let it go on, or set the limits that the form holds; an empty field is taken back."""
        self.must_be_allowed()
        _named(await self.ask(snapshot.queue_views, self.store, self.table), name)
        if what == "limits":
            changes = await self.ask(parsed, {limit: self.asked(limit) for limit in LIMITS})
            said = f"The limits of {name} are set."
            told = ", ".join(f"{limit}={value}" for limit, value in changes.items() if value is not None)
            note = f"set the limits of queue {name}: {told or 'all as in the pools table'}"
        else:
            changes = {"paused": True if what == "pause" else None}
            said, note = f"{name} is {what}d.", f"{what}d queue {name}"
        await self.ask(limits.change, self.store, name, **changes)
        await self.note(note)
        self.go(
            self.reverse_url("queues" if self.asked("back") == "list" else "queue", *self._back(name)), said
        )

    def _back(self, name: str) -> tuple[str, ...]:
        return () if self.asked("back") == "list" else (name,)


def _named(views: list[QueueView], name: str) -> QueueView:
    for view in views:
        if view.name == name:
            return view
    raise HTTPError(404, f"No queue is named {name}")


def _all(store: Store, table: Table, past: HistoryCache) -> dict[str, Any]:
    views = snapshot.queue_views(store, table)
    pasts = past.samples([f"queue:{view.name}" for view in views])
    now_ms = server.now_ms(store)
    return {
        "views": views,
        "lines": {
            view.name: sparkline.of_level(samples, "ready", now_ms=now_ms)
            for view, samples in zip(views, pasts, strict=True)
        },
        "changes": list(audit.recent(store, limit=8)),
        "refusal": server.write_refusal(store),
    }


def _one(store: Store, table: Table, past: HistoryCache, name: str) -> dict[str, Any]:
    view = _named(snapshot.queue_views(store, table), name)
    [samples] = past.samples([f"queue:{name}"])
    now_ms = server.now_ms(store)
    lines = {
        "ready": sparkline.of_level(samples, "ready", now_ms=now_ms),
        "oldest": sparkline.of_level(samples, "oldest_seconds", now_ms=now_ms),
        "in": sparkline.of_rate(samples, "published", now_ms=now_ms),
        "out": sparkline.of_rate(samples, "settled", "dead", now_ms=now_ms),
    }
    return {"view": view, "lines": lines, "overrides": limits.overrides(store, name)}
