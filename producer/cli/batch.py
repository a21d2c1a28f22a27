"""`millpond batch ID`: show, follow, close or cancel a batch. `millpond batches`: list the batches.

The functions that print results and cancellations also serve `millpond task`.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from millpond.producer.cli.options import Json

if TYPE_CHECKING:
    from millpond.broker.batches.record import Summary
    from millpond.producer.batch import Batch

app = typer.Typer()
listing = typer.Typer()


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
            _print_failures(opened, as_json)
        print_result({"summary": _summary_as_json(summary)}, _summary_as_text(summary), as_json)
    print_unacknowledged(unacknowledged)
    raise typer.Exit(1 if summary.failed or summary.expired or unacknowledged else 0)


@listing.command(epilog="Example: millpond batches --open")
def batches(
    limit: Annotated[int, typer.Option(min=1, help="The most batches to list.")] = 20,
    still_open: Annotated[
        bool, typer.Option("--open", help="Only batches that are not closed, as when their producer died.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the batches opened last, the newest first, and when a task was last sent into an open one.

    Close one with `millpond batch ID --close`, or cancel it with `millpond batch ID --cancel`.
    """
    from millpond.producer.cli.client_session import open_client

    with open_client() as client:
        now_ms = client.now_ms()
        for summary in client.batches(limit, still_open=still_open):
            print_result(_summary_as_json(summary), _summary_as_text(summary, now_ms), as_json)


def _follow_batch(batch: "Batch") -> "Summary":
    """Show a progress bar until the batch is complete. Return its summary."""
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


def _print_failures(batch: "Batch", as_json: bool) -> None:
    """Print the id of each task that failed or expired, and the reason."""
    for result in batch.failures():
        fields = {"id": result.id, "state": result.state, "error": result.error}
        print_result(fields, f"{result.id}: {result.error or result.state}", as_json)


def _summary_as_json(summary: "Summary") -> dict[str, Any]:
    """Return a summary as a JSON object."""
    from dataclasses import asdict

    return {**asdict(summary), "pending": summary.pending, "complete": summary.complete}


def print_unacknowledged(processes: tuple[str, ...]) -> None:
    """Print to stderr the worker processes that did not acknowledge a cancellation, if there are any."""
    import sys

    if processes:
        names = ", ".join(processes)
        print(f"not acknowledged by {names}: they may still start cancelled tasks", file=sys.stderr)


def _summary_as_text(summary: "Summary", now_ms: int | None = None) -> str:
    """Return a summary as a line for people.

    With `now_ms`, the broker's time, the line of an open batch ends with the age of its last send.
    """
    parts = [f"{summary.sent:,} sent", f"{summary.succeeded:,} succeeded"]
    others = ("failed", "cancelled", "expired", "pending")
    parts += [f"{count:,} {name}" for name in others if (count := getattr(summary, name))]
    state = "complete" if summary.complete else "closed" if summary.closed_at_ms else "open"
    if now_ms is not None and not summary.closed_at_ms:
        seconds = (now_ms - (summary.last_sent_at_ms or summary.opened_at_ms)) / 1000
        parts.append(f"{'last sent to' if summary.last_sent_at_ms else 'opened'} {seconds:,.0f} s ago")
    description = f" ({summary.description})" if summary.description else ""
    return f"{summary.id}{description}: {state}, {', '.join(parts)}"


def print_result(fields: dict[str, Any], line: str, as_json: bool) -> None:
    """Print `fields` as a line of JSON if `as_json`, or else `line`."""
    from millpond.producer import json_text

    print(json_text.to_text(fields) if as_json else line, flush=True)
