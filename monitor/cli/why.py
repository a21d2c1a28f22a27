"""`millpond why`: the diagnosis of pools, with the number and the command that follow from it."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: millpond why email --probe")
def why(
    pool: Annotated[str | None, typer.Argument(metavar="POOL", help="As `millpond status` lists it.")] = None,
    probe: Annotated[
        bool,
        typer.Option(
            help="Measure first whether throughput grows with slots: for up to half a minute, half of the "
            "pool's slots are idle now and then."
        ),
    ] = False,
    watch: Annotated[bool, typer.Option(help="Repeat every two seconds until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")] = False,
) -> None:
    """Diagnose slow pools: too few slots, a dependency, a lock, failures, a limit, or too short tasks.

    From the last ten seconds and the last minute, compared with the usual times of the same kinds.
    """
    import json
    from dataclasses import asdict
    from time import sleep

    from millpond.broker.stats import probing
    from millpond.monitor.cli.store import open_store
    from millpond.monitor.diagnosis import diagnose_all
    from millpond.monitor.diagnosis.words import lines
    from millpond.monitor.snapshot import read
    from millpond.tasks.errors import BadInput
    from millpond.tasks.name_suggestions import unknown
    from millpond.tasks.settings import settings

    if probe and pool is None:
        raise BadInput("--probe measures one pool: name it, as in millpond why email --probe")
    with open_store() as store:
        names = [view.name for view in read(store, settings().table).pools]
        if pool is not None and pool not in names:
            raise BadInput(unknown("pool", pool, names))
        if probe and pool is not None and (candidate := probing.candidate(store, pool)) is not None:
            typer.echo(f"Measuring pool {pool} for up to half a minute …", err=True)
            probing.probe(store, candidate)
        while True:
            for found in diagnose_all(store, read(store, settings().table)):
                if pool in (None, found.pool):
                    print(json.dumps(asdict(found)) if as_json else "\n".join(lines(found)), flush=True)
            if not watch:
                return
            sleep(2)
            if not as_json:
                print()
