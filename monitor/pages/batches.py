"""The pages of batches: their progress and failures, and cancelling one."""

from tornado.web import HTTPError

from millpond.broker.batches import record
from millpond.broker.batches.record import Summary
from millpond.broker.batches.running import find_running_tasks
from millpond.broker.control import cancel
from millpond.broker.errors import UnknownBatch
from millpond.monitor.pages.handler import PageHandler

#: The most batches on the page.
SHOWN = 100

#: The longest wait for acknowledgements of a cancellation. The batch is cancelled also without them.
ACK_TIMEOUT_SECONDS = 3.0


class BatchesPage(PageHandler):
    """The page of the batches opened last."""

    async def get(self) -> None:
        """Render the batches, the newest first."""
        summaries = await self.call_broker(lambda: list(record.read_batches(self.store, limit=SHOWN + 1)))
        self.render_page(
            "batches.html",
            tab="batches",
            batches=summaries[:SHOWN],
            more=len(summaries) > SHOWN,
            batch_state=batch_state,
        )


class BatchPage(PageHandler):
    """The page of one batch."""

    async def get(self, batch_id: str) -> None:
        """Render the counts of the batch, its running tasks and its last failures, or 404."""
        summary = await self._read_summary(batch_id)
        failures = await self.call_broker(record.read_last_failures, self.store, batch_id)
        running = [] if summary.complete else await self.call_broker(find_running_tasks, self.store, batch_id)
        self.render_page(
            "batch.html",
            tab="batches",
            batch=summary,
            running=running,
            failures=failures,
            batch_state=batch_state,
        )

    async def _read_summary(self, batch_id: str) -> Summary:
        """Return the counts of a batch. Raises `HTTPError` 404 if there is no such batch."""
        try:
            return await self.call_broker(record.read_summary, self.store, batch_id)
        except HTTPError as error:
            if isinstance(error.__cause__, UnknownBatch):
                raise HTTPError(404, str(error.__cause__)) from None
            raise


class CancelBatch(PageHandler):
    """Cancel one batch after a confirmation."""

    async def post(self, batch_id: str) -> None:
        """Render the confirmation, or cancel the batch if the form confirms it."""
        self.require_change_right()
        summary = await self.call_broker(record.read_summary, self.store, batch_id)
        if self.field("confirmed") != "yes":
            self.render_page(
                "confirm.html",
                tab="batches",
                title=f"Cancel the rest of this batch: {summary.pending:,} of {summary.sent:,} tasks?",
                text="No task of it starts any more. Running tasks finish, or stop where they check for it.",
                action=self.reverse_url("cancel-batch", batch_id),
                button="Cancel the batch",
                danger=True,
                fields=[],
                back=self.reverse_url("batch", batch_id),
            )
            return
        cancelled = await self.call_broker(
            cancel.cancel_batch, self.store, batch_id, timeout_seconds=ACK_TIMEOUT_SECONDS
        )
        await self.record_change(f"cancelled batch {batch_id}")
        message = "Cancelled: no task of it starts any more."
        if unacknowledged := len(cancelled.unacknowledged):
            message = f"Cancelled. {unacknowledged} worker processes have not acknowledged it yet."
        self.redirect_with_message(self.reverse_url("batch", batch_id), message)


def batch_state(summary: Summary) -> str:
    """Return the state that the pages show: `open`, `closed`, `complete` or `cancelled`."""
    if summary.cancelled_at_ms is not None:
        return "cancelled"
    if summary.complete:
        return "complete"
    return "closed" if summary.closed_at_ms is not None else "open"
