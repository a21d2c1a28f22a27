"""Offer `millpond batches`: the batches opened last."""

from typing import Annotated

import typer

from millpond.producer.cli.options import Json

app = typer.Typer()


@app.command(epilog="Example: millpond batches --open")
def batches(
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    still_open: Annotated[
        bool, typer.Option("--open", help="Only those that nobody has closed, as when their producer died.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the batches opened last, the newest first.

    One that is open says when something was last sent into it. Close it with `millpond batch ID --close`, or
    drop what waits of it with `millpond batch ID --cancel`.
    """
    import json

    from millpond.producer.cli.batch import as_object, in_words
    from millpond.producer.cli.client_session import configured

    with configured() as client:
        now_ms = client.now_ms()
        for summary in client.batches(limit, still_open=still_open):
            print(json.dumps(as_object(summary)) if as_json else in_words(summary, now_ms))
