"""Offer `millpond batch ID`: what became of a batch, from anywhere."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from millpond.producer.cli.options import Json

if TYPE_CHECKING:
    from millpond.broker.batches.record import Summary
    from millpond.producer.batch import Batch

app = typer.Typer()


@app.command(epilog="Example: millpond batch 2f6c… --follow")
def batch(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `millpond batches` lists it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the batch is complete.")] = False,
    failures: Annotated[bool, typer.Option("--failures", help="List what failed, and why.")] = False,
    close: Annotated[
        bool, typer.Option("--close", help="Close it, when its producer died before it could.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Close it and drop what has not started; what runs goes on.")
    ] = False,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="Cancel it, and end what runs on a prefork pool.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a batch: what was sent into it and how it ended.

    Exits with 1 when something in it failed, or when a worker had not confirmed the cancellation in time.
    """
    from millpond.broker import audit
    from millpond.producer.cli.client_session import configured

    with configured() as client:
        found, unacknowledged = client.open_batch(id), tuple[str, ...]()
        if close:
            found.close()
            audit.record_command(client.store, f"closed batch {id}")
        if cancel or terminate:
            unacknowledged = found.cancel(terminate=terminate).unacknowledged
            audit.record_command(client.store, f"{'terminated' if terminate else 'cancelled'} batch {id}")
        summary = _follow(found) if follow else found.summary()
        if failures:
            for result in found.failures():
                line = {"id": result.id, "state": result.state, "error": result.error}
                _print(line, f"{result.id}: {result.error or result.state}", as_json)
        _print({"summary": as_object(summary)}, in_words(summary), as_json)
    print_unacknowledged(unacknowledged)
    raise typer.Exit(1 if summary.failed or summary.expired or unacknowledged else 0)


def _follow(batch: "Batch") -> "Summary":
    """Show progress until the batch is complete.

    The counts are the server's, so nothing is streamed for them.
    """
    from datetime import timedelta

    from millpond.producer.cli.counters import Count
    from millpond.producer.cli.progress import Progress

    count = Count()
    with Progress(count, "batch"):
        while True:
            summary = batch.wait(timeout=timedelta(seconds=0.2))
            count.sent = count.total = summary.sent
            count.succeeded = summary.succeeded
            count.failed = summary.settled - summary.succeeded
            if summary.complete:
                return summary


def as_object(summary: "Summary") -> dict[str, Any]:
    """Return a summary as JSON has it."""
    from dataclasses import asdict

    return {**asdict(summary), "pending": summary.pending, "complete": summary.complete}


def print_unacknowledged(processes: tuple[str, ...]) -> None:
    """Name the worker processes that may still start what was cancelled."""
    import sys

    if processes:
        names = ", ".join(processes)
        print(f"not confirmed by {names}: they may start some of it until they answer", file=sys.stderr)


def in_words(summary: "Summary", now_ms: int | None = None) -> str:
    """Return a summary as a line for a person; with the time, an open batch says when it was last sent to."""
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


def _print(value: dict[str, Any], text: str, as_json: bool) -> None:
    import json

    print(json.dumps(value) if as_json else text, flush=True)
