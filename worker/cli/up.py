"""`millpond up`: run a broker, the pools and Flower on this machine, and print their addresses."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from millpond.tasks.errors import BadInput, StartError

if TYPE_CHECKING:
    from millpond.tasks.settings import Settings
    from millpond.worker.local.addresses import RequestedAddresses
    from millpond.worker.local.embedded import Embedded

Pools = Annotated[
    list[str] | None, typer.Option("--pool", metavar="POOL", help="Run this pool only; may be repeated.")
]
Roots = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="A folder that file tasks may touch; may be repeated. Without any, and with none in "
        "MILLPOND_FILES__ROOTS: the current folder.",
    ),
]
Data = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Keep data and logs here, not in your state folder.")
]
#: A port of loopback.
Port = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="Listen here from now on; 0 takes a free one. Else that of the last start."
    ),
]
Password = Annotated[
    str | None,
    typer.Option(
        help="The broker's password, from now on; at first a random one. Other users of this machine can "
        "read it while this runs."
    ),
]

app = typer.Typer()


@app.command(epilog="Example: millpond up --pool email --no-flower")
def up(
    pools: Pools = None,
    flower: Annotated[bool, typer.Option(help="Run Flower on loopback.")] = True,
    roots: Roots = None,
    data: Data = None,
    port: Port = None,
    flower_port: Port = None,
    password: Password = None,
) -> None:
    """Run a broker, every pool, periodic tasks and Flower on this machine, until Ctrl-C.

    The broker is a private Valkey, unless MILLPOND_BROKER_URL or your Celery application names one. Tasks
    that remain when you stop it are kept and run after the next start, which has the same ports and password.
    The other commands use it if no broker is configured.
    """
    from millpond.tasks.process.configured_broker import settings_of_application
    from millpond.tasks.settings import settings
    from millpond.worker.local.addresses import RequestedAddresses

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    configured = add_file_roots(settings_of_application(settings()), roots or [])
    pools = pools or list(configured.table.pools)
    check_extras(configured, pools, flower=flower)
    if configured.broker_url and (port is not None or password is not None):
        raise BadInput("MILLPOND_BROKER_URL names the broker: leave out --port and --password, or unset it")
    typer.echo("Starting…")
    run_services(configured, pools, RequestedAddresses(port, password, flower_port), flower=flower, data=data)
    typer.echo("Stopped. The remaining tasks are kept for the next start.")


def run_services(
    settings: "Settings",
    pools: list[str],
    addresses: "RequestedAddresses",
    *,
    flower: bool,
    data: Path | None,
) -> None:
    """Run the services until Ctrl-C. Raises `StartError` if one of them ends by itself."""
    from millpond.tasks.process.paths import state_folder
    from millpond.worker.local.embedded import embedded

    ended = None
    with embedded(
        settings,
        pools=pools,
        flower=flower,
        scheduler=bool(settings.schedule),
        data_dir=data or state_folder(),
        addresses=addresses,
    ) as running:
        try:
            typer.echo(format_overview(running, pools, own_broker=not settings.broker_url))
            ended = running.wait()
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, _on_second_interrupt)
            typer.echo(
                f"\nStopping: running tasks have {settings.drain_seconds:.0f} s to finish. "
                "A second Ctrl-C does not wait."
            )
    if ended:
        raise StartError(
            f"{ended} ended unexpectedly, so everything was stopped: see its log in {running.data_dir}"
        )


def check_extras(settings: "Settings", pools: list[str], *, flower: bool) -> None:
    """Check that the extras of the services are installed. Print those that handlers of these pools lack.

    Raises `StartError` if a service lacks its extra.
    """
    from millpond.tasks import extras

    service_extras = [*([] if settings.broker_url else ["embedded"]), *(["flower"] if flower else [])]
    known_pools = (settings.table.pools[name] for name in pools if name in settings.table.pools)
    handler_extras = extras.extras_of_queues(queue for pool in known_pools for queue in pool.queues)
    if extras.missing_packages(*service_extras):
        extras.require_extras("millpond up", *service_extras, *handler_extras)
    if missing := extras.missing_packages(*handler_extras):
        names, command = extras.list_packages(missing), extras.install_command(missing)
        typer.echo(f"Its pools will lack {names}. Install with: {command}", err=True)


def add_file_roots(settings: "Settings", added: list[str]) -> "Settings":
    """Return the settings with these file roots (folders, or URLs of object stores) before their own.

    If there are none and no broker URL, the current folder is the root, unless it is `/`. Raises `BadInput`
    for a root that is no folder.
    """
    for root in added:
        if "://" not in root and not Path(root).is_dir():
            raise BadInput(f"--root {root} is not a folder: create it, or name another")
    roots = (
        *(root if "://" in root else os.path.realpath(root) for root in added),
        *settings.files.roots,
    )
    if not roots and not settings.broker_url and Path.cwd() != Path("/"):
        roots = (str(Path.cwd()),)
    return settings.model_copy(update={"files": settings.files.model_copy(update={"roots": roots})})


def format_overview(running: "Embedded", pools: list[str], *, own_broker: bool) -> str:
    """Return the text to print once all is ready: the services, their addresses, how to use and stop them."""
    from millpond.broker.url import BrokerURL

    table = running.settings.table
    lines = [f"broker  {BrokerURL.parse(running.url)}" + (", private" if own_broker else "")]
    for name in pools:
        pool = table.pools[name]
        slots = f"{pool.slots} slots ({pool.processes} x {pool.concurrency} {pool.executor})"
        lines.append(f"pool    {name}: {slots}, queues {', '.join(pool.queues)}")
        if "files" in pool.queues:
            roots = ", ".join(running.settings.files.roots) or "nothing: name a folder with --root DIR"
            lines.append(f"        may touch {roots}")
    for name, periodic in running.settings.schedule.items():
        lines.append(f"sends   {name}: {periodic.kind}, {periodic.timing}")
    if running.flower_url:
        lines.append(f"flower  {running.flower_url}")
    lines.append(f"logs    {running.data_dir}")
    if own_broker:
        lines += ["", "For programs that send to it:", f"  export MILLPOND_BROKER_URL='{running.url}'"]
    return "\n".join(
        [*lines, "", "Ctrl-C stops after the running tasks have finished; a second one stops at once."]
    )


def _on_second_interrupt(_number: int, _frame: FrameType | None) -> None:
    """Stop without waiting for running tasks. The handler of a second signal during the stop."""
    typer.echo("Not waiting.")
    raise KeyboardInterrupt
