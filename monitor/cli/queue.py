"""Offer `millpond queue`: look at a queue, change its limits while it runs, pause it and let it go on."""

from typing import Annotated, Any, get_args

import typer

app = typer.Typer(
    help="Show, set, pause and resume a queue, for the whole fleet and at once.",
    no_args_is_help=True,
    epilog="Example: millpond queue set email --rate 50/s",
)

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="As `millpond status` lists it.")]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON object.")]


@app.command(epilog="Example: millpond queue show email")
def show(name: Name, as_json: Json = False) -> None:
    """Show what a queue holds, its limits in force and its counters."""
    import json

    from millpond.monitor.json_views import queue_object

    view = queue_object(_view(name))
    if as_json:
        print(json.dumps(view))
        return
    counters, limits = view.pop("counters"), view.pop("limits")
    for title, values in (("", view), ("limits", limits), ("so far", counters)):
        for key, value in values.items():
            print(f"{title} {key}".strip().ljust(28), _shown(value))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return f"{round(value, 3):.12g}" if isinstance(value, float) else "-" if value is None else str(value)


@app.command("set", epilog="Example: millpond queue set email --bound 5000 --rate 50/s --in-flight 20")
def set_(
    name: Name,
    bound: Annotated[
        str | None, typer.Option(metavar="N|TIME", help="Messages that may wait, or what is cleared in 30s.")
    ] = None,
    overflow: Annotated[
        str | None, typer.Option(help="When it is full: block, reject, shed or caller_runs.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="Of the whole fleet, as in 50/s, 100/m.")
    ] = None,
    burst: Annotated[float | None, typer.Option(min=1, help="Tasks at once under a rate.")] = None,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Tasks that run at once, of the whole fleet.")
    ] = None,
    max_deliveries: Annotated[int | None, typer.Option(min=1, help="Deliveries until it is buried.")] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMIT", help="Take a limit back to the pools table; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set limits of a queue; they hold from the next message on, until they are unset."""
    from millpond.tasks.durations import per_second, queue_bound
    from millpond.tasks.errors import BadInput
    from millpond.tasks.name_suggestions import there_are
    from millpond.tasks.pools import Overflow

    given: dict[str, Any] = {
        "bound": None if bound is None else queue_bound(bound),
        "overflow": overflow,
        "rate": None if rate is None else per_second(rate),
        "burst": burst,
        "in_flight": in_flight,
        "max_deliveries": max_deliveries,
    }
    changes = {limit: value for limit, value in given.items() if value is not None}
    taken_back = [limit.replace("-", "_") for limit in unset or ()]
    if not changes and not taken_back:
        raise BadInput("nothing to set: name a limit, as in --bound 5000")
    for limit in taken_back:
        if limit not in given:
            raise BadInput(f"{limit!r} is no limit that can be unset; {there_are(limit, given)}")
    if overflow not in (None, *get_args(Overflow)):
        raise BadInput(f"--overflow is block, reject, shed or caller_runs, not {overflow!r}")
    _change(name, as_json, {**changes, **dict.fromkeys(taken_back)})


@app.command(epilog="Example: millpond queue pause email")
def pause(name: Name, as_json: Json = False) -> None:
    """Hand out nothing more from a queue; what runs goes on, and sending does too."""
    said = f"paused; millpond queue resume {name} lets it go on"
    _change(name, as_json, {"paused": True}, done="paused", said=said)


@app.command(epilog="Example: millpond queue resume email")
def resume(name: Name, as_json: Json = False) -> None:
    """Hand out messages of a paused queue again."""
    _change(name, as_json, {"paused": None}, done="resumed", said="goes on")


def _view(name: str) -> Any:
    from millpond.monitor.cli.opening import known, opened
    from millpond.monitor.snapshot import queue_views
    from millpond.tasks.settings import settings

    with opened() as store:
        known(store, name)
        return next(view for view in queue_views(store, settings().table) if view.depth.queue == name)


def _change(name: str, as_json: bool, changes: dict[str, Any], *, done: str = "", said: str = "") -> None:
    import json
    from dataclasses import asdict

    from millpond.broker import audit, limits
    from millpond.monitor.cli.opening import known, opened

    told = ", ".join(f"{limit} {'unset' if value is None else value}" for limit, value in changes.items())
    with opened() as store:
        known(store, name)
        in_force = asdict(limits.change(store, name, **changes))
        audit.record_command(
            store, f"{done} queue {name}" if done else f"set the limits of queue {name}: {told}"
        )
    print(json.dumps({"queue": name, "limits": in_force}) if as_json else f"{name}: {said or told}")
