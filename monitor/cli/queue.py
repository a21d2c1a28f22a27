"""`millpond queue`: show a queue, change its limits at run time, pause and resume it."""

from collections.abc import Sequence
from typing import Annotated, Any, get_args

import typer

from millpond.monitor.cli.output import print_result
from millpond.monitor.cli.store import open_store, require_queue
from millpond.tasks.errors import BadInput

app = typer.Typer(
    help="Show, set, pause and resume a queue, for the whole fleet and at once.",
    no_args_is_help=True,
    epilog="Example: millpond queue set email --rate 50/s",
)

QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="A queue, as `millpond status` lists it.")]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON object.")]


@app.command(epilog="Example: millpond queue show email")
def show(queue: QueueName, as_json: Json = False) -> None:
    """Show the depth of a queue, its limits in force and its counters."""
    import json

    from millpond.monitor.json_views import queue_json

    view = queue_json(_read_queue(queue))
    if as_json:
        print(json.dumps(view))
        return
    counters, limits = view.pop("counters"), view.pop("limits")
    for title, values in (("", view), ("limits", limits), ("total", counters)):
        for key, value in values.items():
            print(f"{title} {key}".strip().ljust(28), _format_value(value))


def _format_value(value: object) -> str:
    """Return a value as text: names of a list joined, numbers with up to three decimals, None as `-`."""
    if isinstance(value, list):
        return ", ".join(value)
    return f"{round(value, 3):.12g}" if isinstance(value, float) else "-" if value is None else str(value)


@app.command("set", epilog="Example: millpond queue set email --bound 5000 --rate 50/s --in-flight 20")
def set_(
    queue: QueueName,
    bound: Annotated[
        str | None,
        typer.Option(metavar="N|TIME", help="Messages, or a time: as many as the pool clears in it."),
    ] = None,
    overflow: Annotated[
        str | None, typer.Option(help="Policy of the full queue: block, reject, shed or caller_runs.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="Tasks a time, of the whole fleet, as in 50/s, 100/m.")
    ] = None,
    burst: Annotated[float | None, typer.Option(min=1, help="Tasks at once under a rate limit.")] = None,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Tasks in flight at once, of the whole fleet.")
    ] = None,
    max_deliveries: Annotated[
        int | None, typer.Option(min=1, help="Deliveries until a message becomes a dead letter.")
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMIT", help="Use the pools table's value again; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set limits of a queue; they apply at once, until they are unset."""
    options: dict[str, Any] = {
        "bound": bound,
        "overflow": overflow,
        "rate": rate,
        "burst": burst,
        "in_flight": in_flight,
        "max_deliveries": max_deliveries,
    }
    changes = _collect_changes(options, unset or ())
    listed = ", ".join(f"{limit} {'unset' if value is None else value}" for limit, value in changes.items())
    audit_text = f"set the limits of queue {queue}: {listed}"
    _change_limits(queue, as_json, changes, audit_text=audit_text, line=f"{queue}: {listed}")


def _collect_changes(options: dict[str, Any], unset: Sequence[str]) -> dict[str, Any]:
    """Return the limits that change, by name. The value None unsets a limit.

    Raises `BadInput` if there are none, or if a name or a value is none of a limit.
    """
    from millpond.tasks.durations import parse_bound, parse_rate
    from millpond.tasks.name_suggestions import known_names_text
    from millpond.tasks.pools import Overflow

    changes = {limit: value for limit, value in options.items() if value is not None}
    for limit, parse in (("bound", parse_bound), ("rate", parse_rate)):
        if limit in changes:
            changes[limit] = parse(changes[limit])
    to_unset = [limit.replace("-", "_") for limit in unset]
    if not changes and not to_unset:
        raise BadInput("nothing to set: name a limit, as in --bound 5000")
    for limit in to_unset:
        if limit not in options:
            raise BadInput(f"{limit!r} is not a limit that can be unset; {known_names_text(limit, options)}")
        if limit in changes:
            option = limit.replace("_", "-")
            raise BadInput(f"--{option} sets what --unset {option} unsets: leave out one of them")
    if options["overflow"] not in (None, *get_args(Overflow)):
        raise BadInput(f"--overflow is block, reject, shed or caller_runs, not {options['overflow']!r}")
    return {**changes, **dict.fromkeys(to_unset)}


@app.command(epilog="Example: millpond queue pause email")
def pause(queue: QueueName, as_json: Json = False) -> None:
    """Stop fetching from a queue; running tasks finish, and sending goes on."""
    line = f"{queue}: paused. Resume it with: millpond queue resume {queue}"
    _change_limits(queue, as_json, {"paused": True}, audit_text=f"paused queue {queue}", line=line)


@app.command(epilog="Example: millpond queue resume email")
def resume(queue: QueueName, as_json: Json = False) -> None:
    """Resume a paused queue."""
    audit_text, line = f"resumed queue {queue}", f"{queue}: resumed"
    _change_limits(queue, as_json, {"paused": None}, audit_text=audit_text, line=line)


def _read_queue(queue: str) -> Any:
    """Return the `QueueView` of one queue. Raises `UnknownQueue`."""
    from millpond.monitor.snapshot import read_queue_views
    from millpond.tasks.settings import settings

    with open_store() as store:
        require_queue(store, queue)
        return next(view for view in read_queue_views(store, settings().table) if view.name == queue)


def _change_limits(queue: str, as_json: bool, changes: dict[str, Any], *, audit_text: str, line: str) -> None:
    """Change the limits of a queue, record that in the audit, and print `line`, or as JSON the limits.

    The value None unsets a limit. Raises `UnknownQueue`.
    """
    from dataclasses import asdict

    from millpond.broker import audit, limits

    with open_store() as store:
        require_queue(store, queue)
        in_force = asdict(limits.change_limits(store, queue, **changes))
        audit.record_command(store, audit_text)
    print_result({"queue": queue, "limits": in_force}, line, as_json=as_json)
