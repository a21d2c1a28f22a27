"""`millpond why`: the diagnosis of pools, with the number and the command that follow from it."""

from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated

import typer

from millpond.monitor.cli.output import JsonLines
from millpond.monitor.cli.store import open_store
from millpond.tasks.errors import BadInput

if TYPE_CHECKING:
    from millpond.broker.connection import Store

app = typer.Typer()


@app.command(epilog="Example: millpond why email --probe")
def why(
    pool: Annotated[str | None, typer.Argument(metavar="POOL", help="As `millpond status` lists it.")] = None,
    probe: Annotated[
        bool,
        typer.Option(
            help="Measure first whether throughput grows with slots: for half a minute, or a few minutes if "
            "runs are long, half of the pool's slots are idle now and then."
        ),
    ] = False,
    second_slot: Annotated[
        bool,
        typer.Option(
            help="With --probe, for a pool of one slot: run a second worker process here meanwhile, so that "
            "two of its tasks run at once."
        ),
    ] = False,
    watch: Annotated[bool, typer.Option(help="Repeat every two seconds until Ctrl-C.")] = False,
    as_json: JsonLines = False,
) -> None:
    """Diagnose slow pools: too few slots, a dependency, a lock, failures, a limit, or too short tasks.

    The diagnosis compares the last ten seconds and the last minute (five if few runs ended) with the usual
    times of the same kinds.
    """

    _check_options(pool, probe, second_slot)
    with open_store() as store:
        if pool is not None:
            _require_pool(store, pool)
            if probe:
                _probe_pool(store, pool, second_slot)
        _print_diagnoses(store, pool, as_json)
        while watch:
            sleep(2)
            if not as_json:
                print()
            _print_diagnoses(store, pool, as_json)


def _check_options(pool: str | None, probe: bool, second_slot: bool) -> None:
    """Raise `BadInput` if an option lacks the pool or the option that it belongs to."""

    if probe and pool is None:
        raise BadInput("--probe measures one pool: name it, as in millpond why email --probe")
    if second_slot and not probe:
        example = f"millpond why {pool or 'email'} --probe --second-slot"
        raise BadInput(f"--second-slot is part of a measurement: give --probe too, as in {example}")


def _require_pool(store: "Store", pool: str) -> None:
    """Raise `BadInput` unless the pool is in the table or a worker reports it."""
    from millpond.monitor.snapshot import read_snapshot
    from millpond.tasks.name_suggestions import unknown_name_text
    from millpond.tasks.settings import settings

    names = [view.name for view in read_snapshot(store, settings().table).pools]
    if pool not in names:
        raise BadInput(unknown_name_text("pool", pool, names))


def _print_diagnoses(store: "Store", pool: str | None, as_json: bool) -> None:
    """Print the present diagnosis of a pool, or of all pools (None)."""
    import json
    from dataclasses import asdict, replace

    from millpond.monitor.diagnosis import diagnose_all
    from millpond.monitor.diagnosis.words import diagnosis_lines
    from millpond.monitor.snapshot import read_snapshot
    from millpond.tasks.settings import settings

    snapshot = read_snapshot(store, settings().table)
    views = tuple(view for view in snapshot.pools if pool in (None, view.name))
    for diagnosis in diagnose_all(store, replace(snapshot, pools=views)):
        print(json.dumps(asdict(diagnosis)) if as_json else "\n".join(diagnosis_lines(diagnosis)), flush=True)


def _probe_pool(store: "Store", pool: str, second_slot: bool) -> None:
    """Measure the elasticity of a pool. With `second_slot`, a second process of it runs here meanwhile."""
    from contextlib import nullcontext

    from millpond.monitor.cli.second_process import second_process

    with second_process(store, pool) if second_slot else nullcontext():
        _measure_elasticity(store, pool)


def _measure_elasticity(store: "Store", pool: str) -> None:
    """Measure the elasticity of a pool, or wait while another process measures it.

    If the pool cannot be measured, the reason is printed on stderr.
    """
    from millpond.broker.stats import probing
    from millpond.broker.stats.probing import Candidate

    candidate = probing.find_candidate(store, pool)
    if not isinstance(candidate, Candidate):
        typer.echo(f"Pool {pool} is not measured: {candidate.reason}.", err=True)
        return
    longest = probing.longest_probe_seconds(candidate)
    typer.echo(f"Measuring pool {pool} for up to {longest:.0f} seconds …", err=True)
    deadline = monotonic() + longest + probing.LOCK_MS / 1000
    while probing.probe_pool(store, candidate) is None and monotonic() < deadline:
        [(is_probed, _)] = probing.read_probe_states(store, [pool])
        if not is_probed:
            typer.echo(f"Pool {pool} changed meanwhile, or its queues ran empty: try again.", err=True)
            return
        sleep(1)
