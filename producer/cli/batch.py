"""`millpond batch ID`: show, follow, close or cancel a batch."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from millpond.producer.cli.options import Json

if TYPE_CHECKING:
    from millpond.broker.batches.record import Summary
    from millpond.producer.batch import Batch

app = typer.Typer()


@app.command(epilog="Example: millpond batch 2f6c… --follow")
def batch(
    id: Annotated[str, typer.Argument(metavar="ID", help="The id, as `millpond batches` lists it.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show progress until the batch is complete.")
    ] = False,
    failures: Annotated[
        bool, typer.Option("--failures", help="List the tasks that failed or expired, and why.")
    ] = False,
    close: Annotated[
        bool, typer.Option("--close", help="Close it, as when its producer died before it could.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Close it and cancel its tasks; ask running ones to stop.")
    ] = False,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="Cancel it, and kill tasks that run on a prefork pool.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a batch: the number of tasks sent into it, and how they ended.

    Exit code 1: a task failed or expired, or a worker did not acknowledge the cancellation in time.
    """
    from millpond.broker import audit
    from millpond.producer.cli.client_session import open_client

    with open_client() as client:
        opened, unacknowledged = client.open_batch(id), tuple[str, ...]()
        if close:
            opened.close()
            audit.record_command(client.store, f"closed batch {id}")
        if cancel or terminate:
            unacknowledged = opened.cancel(terminate=terminate).unacknowledged
            audit.record_command(client.store, f"{'terminated' if terminate else 'cancelled'} batch {id}")
        summary = _follow_batch(opened) if follow else opened.summary()
        if failures:
            for result in opened.failures():
                line = {"id": result.id, "state": result.state, "error": result.error}
                print_result(line, f"{result.id}: {result.error or result.state}", as_json)
        print_result({"summary": as_object(summary)}, in_words(summary), as_json)
    print_unacknowledged(unacknowledged)
    raise typer.Exit(1 if summary.failed or summary.expired or unacknowledged else 0)


def _follow_batch(batch: "Batch") -> "Summary":
    """Show progress until the batch is complete, from its counts alone."""
    from datetime import timedelta

    from millpond.producer.cli.counters import Counters
    from millpond.producer.cli.progress import ProgressBar

    counters = Counters()
    with ProgressBar(counters, "batch"):
        while True:
            summary = batch.wait(timeout=timedelta(seconds=0.2))
            counters.sent = counters.total = summary.sent
            counters.succeeded = summary.succeeded
            counters.failed = summary.settled - summary.succeeded
            if summary.complete:
                return summary


def as_object(summary: "Summary") -> dict[str, Any]:
    """Return a summary as a JSON object."""
    from dataclasses import asdict

    return {**asdict(summary), "pending": summary.pending, "complete": summary.complete}


def print_unacknowledged(processes: tuple[str, ...]) -> None:
    """Print the worker processes that may still start a cancelled task."""
    import sys

    if processes:
        names = ", ".join(processes)
        print(f"not acknowledged by {names}: they may still start cancelled tasks", file=sys.stderr)


def in_words(summary: "Summary", now_ms: int | None = None) -> str:
    """Return a summary as a line for people. At `now_ms`, an open batch shows the age of its last send."""
    counts = [f"{summary.sent:,} sent", f"{summary.succeeded:,} succeeded"]
    counts += [
        f"{getattr(summary, n):,} {n}" for n in ("failed", "cancelled", "expired") if getattr(summary, n)
    ]
    if summary.pending:
        counts.append(f"{summary.pending:,} pending")
    state = "complete" if summary.complete else "closed" if summary.closed_at_ms else "open"
    if now_ms is not None and not summary.closed_at_ms:
        idle = (now_ms - (summary.last_sent_at_ms or summary.opened_at_ms)) / 1000
        counts.append(
            f"last sent to {idle:,.0f} s ago" if summary.last_sent_at_ms else f"opened {idle:,.0f} s ago"
        )
    named = f" ({summary.description})" if summary.description else ""
    return f"{summary.id}{named}: {state}, {', '.join(counts)}"


def print_result(value: dict[str, Any], text: str, as_json: bool) -> None:
    """Print a value as JSON, or its text for people."""
    from millpond.producer import json_text

    print(json_text.to_text(value) if as_json else text, flush=True)
