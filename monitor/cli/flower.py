"""`millpond flower`: serve Flower for the configured broker."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: millpond flower --address 0.0.0.0 --basic-auth ann:secret")
def flower(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Listen on this port; 0 takes a free one.")
    ] = 5555,
    address: Annotated[str, typer.Option(help="Listen on this address.")] = "127.0.0.1",
    basic_auth: Annotated[
        list[str] | None,
        typer.Option(
            metavar="USER:PASSWORD",
            help="A login; may be repeated. Other users of this machine can read it: prefer "
            "MILLPOND_FLOWER_BASIC_AUTH, a JSON list.",
        ),
    ] = None,
    url_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="The sub-path at which a proxy shows it, as in ops/flower; else the setting."
        ),
    ] = None,
) -> None:
    """Serve Flower for the configured broker; on loopback, unless there is a login."""
    from millpond.tasks.extras import require_extras

    require_extras("millpond flower", "flower")
    from millpond.monitor.flower import serve
    from millpond.tasks.process.configured_broker import apply_settings_with_broker

    def announce(url: str) -> None:
        typer.echo(f"Flower is at {url}, until Ctrl-C")

    serve(
        apply_settings_with_broker(),
        address=address,
        port=port,
        basic_auth=basic_auth or (),
        url_prefix=url_prefix,
        on_ready=announce,
    )
