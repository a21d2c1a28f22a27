"""Show batches: how far each got, what failed, and cancel one."""

from tornado.web import HTTPError

from millpond.broker.batches import record
from millpond.broker.batches.record import Summary
from millpond.broker.batches.running import running_tasks
from millpond.broker.control import cancel
from millpond.broker.errors import UnknownBatch
from millpond.monitor.pages.handler import Handler

#: Batches on the page.
SHOWN = 100

#: How long a page waits until the workers have heard of a cancellation; it holds all the same.
PATIENCE_SECONDS = 3.0


class Batches(Handler):
    """List the batches opened last."""

    async def get(self) -> None:
        """Render them, the newest first."""
        found = await self.ask(lambda: list(record.recent(self.store, limit=SHOWN)))
        self.show("batches.html", tab="batches", found=found, state_of=state_of)


class Batch(Handler):
    """Show one batch."""

    async def get(self, id: str) -> None:
        """Render its counts, what runs of it and what failed last, or 404."""
        summary = await self._summary(id)
        failures = await self.ask(record.last_failures, self.store, id)
        running = [] if summary.complete else await self.ask(running_tasks, self.store, id)
        self.show(
            "batch.html", tab="batches", batch=summary, running=running, failures=failures, state_of=state_of
        )

    async def _summary(self, id: str) -> Summary:
        try:
            return await self.ask(record.summary, self.store, id)
        except HTTPError as error:
            if isinstance(error.__cause__, UnknownBatch):
                raise HTTPError(404, str(error.__cause__)) from None
            raise


class Cancel(Handler):
    """Cancel one batch: first ask, then do it."""

    async def post(self, id: str) -> None:
        """Show what would be cancelled; when the form says that it was confirmed, do it."""
        self.must_be_allowed()
        summary = await self.ask(record.summary, self.store, id)
        if self.asked("confirmed") != "yes":
            self.show(
                "confirm.html",
                tab="batches",
                title=f"Cancel what is left of this batch: {summary.pending:,} of {summary.sent:,} tasks?",
                text="Nothing of it starts any more; what runs is finished, or stops where it asks.",
                action=self.reverse_url("cancel-batch", id),
                button="Cancel the batch",
                danger=True,
                fields=[],
                back=self.reverse_url("batch", id),
            )
            return
        done = await self.ask(cancel.cancel_batch, self.store, id, timeout_seconds=PATIENCE_SECONDS)
        await self.note(f"cancelled batch {id}")
        said = "Cancelled: nothing of it starts any more."
        if done.unacknowledged:
            said = f"Cancelled. {len(done.unacknowledged)} worker processes have not heard of it yet."
        self.go(self.reverse_url("batch", id), said)


def state_of(summary: Summary) -> str:
    """Name what a batch does."""
    if summary.cancelled_at_ms is not None:
        return "cancelled"
    if summary.complete:
        return "complete"
    return "closed" if summary.closed_at_ms is not None else "open"
