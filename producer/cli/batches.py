"""Offer `millpond batches`: the batches opened last."""

from typing import Annotated

import typer

from producer.cli.options import Json

app = typer.Typer()


@app.command(epilog="Example: millpond batches --limit 5")
def batches(
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the batches opened last, the newest first."""
    import json

    from producer.cli.batch import as_object, in_words
    from producer.cli.session import configured

    with configured() as client:
        for summary in client.batches(limit):
            print(json.dumps(as_object(summary)) if as_json else in_words(summary))
