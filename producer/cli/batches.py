"""`millpond batches`: list the batches opened last."""

from typing import Annotated

import typer

from millpond.producer.cli.options import Json

app = typer.Typer()


@app.command(epilog="Example: millpond batches --open")
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
    from millpond.producer.cli.batch import print_result, summary_as_json, summary_as_text
    from millpond.producer.cli.client_session import open_client

    with open_client() as client:
        now_ms = client.now_ms()
        for summary in client.batches(limit, still_open=still_open):
            print_result(summary_as_json(summary), summary_as_text(summary, now_ms), as_json)
