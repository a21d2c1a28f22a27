"""Offer `millpond why`: why a pool is slow, from what was measured."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: millpond why email")
def why(
    pool: Annotated[
        str | None, typer.Argument(metavar="[POOL]", help="As `millpond status` lists it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")] = False,
) -> None:
    """Say why pools are slow: too few workers, a slow dependency, a limit, the processor, or too short tasks.

    From the figures of the last minute, and of the last hour to compare them with.
    """
    import json
    from dataclasses import asdict

    from millpond.broker.stats import history
    from millpond.monitor.cli.opening import opened
    from millpond.monitor.diagnosis import verdicts
    from millpond.monitor.snapshot import read
    from millpond.tasks.errors import BadInput
    from millpond.tasks.name_suggestions import unknown
    from millpond.tasks.settings import settings

    with opened() as store:
        seen = read(store, settings().table)
        found = verdicts(seen, history.history(store, [f"pool:{view.name}" for view in seen.pools]))
    if pool is not None and pool not in (names := [verdict.pool for verdict in found]):
        raise BadInput(unknown("pool", pool, names))
    for verdict in found:
        if pool in (None, verdict.pool):
            advice = f"\n  {verdict.advice}" if verdict.advice else ""
            words = f"{verdict.pool}: {verdict.state}. {verdict.why}{advice}"
            print(json.dumps(asdict(verdict)) if as_json else words)
