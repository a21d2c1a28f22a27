"""`millpond why`: the diagnosis of pools."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: millpond why email")
def why(
    pool: Annotated[
        str | None, typer.Argument(metavar="[POOL]", help="A pool, as `millpond status` lists it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")] = False,
) -> None:
    """Diagnose slow pools: too few workers, a slow dependency, a limit, the processor, or too short tasks.

    From the figures of the last minute, compared with those of the last hour.
    """
    import json
    from dataclasses import asdict

    from millpond.broker.stats import history
    from millpond.monitor.cli.store import open_store
    from millpond.monitor.diagnosis import diagnose_all
    from millpond.monitor.snapshot import read
    from millpond.tasks.errors import BadInput
    from millpond.tasks.name_suggestions import unknown
    from millpond.tasks.settings import settings

    with open_store() as store:
        seen = read(store, settings().table)
        found = diagnose_all(seen, history.history(store, [f"pool:{view.name}" for view in seen.pools]))
    if pool is not None and pool not in (names := [diagnosis.pool for diagnosis in found]):
        raise BadInput(unknown("pool", pool, names))
    for diagnosis in found:
        if pool in (None, diagnosis.pool):
            advice = f"\n  {diagnosis.advice}" if diagnosis.advice else ""
            text = f"{diagnosis.pool}: {diagnosis.state}. {diagnosis.why}{advice}"
            print(json.dumps(asdict(diagnosis)) if as_json else text)
