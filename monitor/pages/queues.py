"""Show the queues, and change a queue's limits, pause it and let it go on."""

from typing import Any

from tornado.web import HTTPError

from broker import audit, limits, samples, status, writing
from broker.connection import Store
from monitor import overview, sparkline
from monitor.limit_words import LIMITS, OVERFLOWS, parsed
from monitor.overview import QueueView
from monitor.pages.handler import Handler
from tasks.pools import Table


class Queues(Handler):
    """Show every queue on one page."""

    async def get(self) -> None:
        """Render the queues as they are now."""
        views, lines = await self.ask(_seen, self.store, self.table)
        changes = await self.ask(lambda: list(audit.recent(self.store, limit=8)))
        refusal = await self.ask(writing.refusal, self.store)
        self.show("queues.html", tab="queues", views=views, lines=lines, changes=changes, refusal=refusal)


class Queue(Handler):
    """Show one queue with its counters, its last hour and its limits."""

    async def get(self, name: str) -> None:
        """Render the queue, or 404."""
        views, lines = await self.ask(_seen, self.store, self.table)
        view = _named(views, name)
        overrides = await self.ask(limits.overrides, self.store, name)
        own = {"overrides": overrides, "names": LIMITS, "overflows": OVERFLOWS}
        self.show("queue.html", tab="queues", view=view, lines=lines[name], **own)


class Change(Handler):
    """Change one queue."""

    async def post(self, name: str, what: str) -> None:
        """Pause it, let it go on, or set the limits that the form holds; an empty field is taken back."""
        self.must_be_allowed()
        _named(await self.ask(overview.queue_views, self.store, self.table), name)
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


def _seen(store: Store, table: Table) -> tuple[list[QueueView], dict[str, dict[str, Any]]]:
    views = overview.queue_views(store, table)
    names = [view.name for view in views]
    now_ms = status.now_ms(store)
    histories = samples.history(store, [f"queue:{name}" for name in names])
    lines = {
        name: {
            "ready": sparkline.of_level(history, "ready", now_ms=now_ms),
            "oldest": sparkline.of_level(history, "oldest_seconds", now_ms=now_ms),
            "in": sparkline.of_rate(history, "published", now_ms=now_ms),
            "out": sparkline.of_rate(history, "settled", "dead", now_ms=now_ms),
        }
        for name, history in zip(names, histories, strict=True)
    }
    return views, lines
