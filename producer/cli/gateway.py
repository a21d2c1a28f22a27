"""`millpond gateway`: serve the client over HTTP; `millpond gateway token`: make a token for it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from millpond.producer.cli.options import Json

if TYPE_CHECKING:
    from millpond.tasks.settings import GatewayToken

app = typer.Typer(
    help="Serve sending, batches and results over HTTP.",
    invoke_without_command=True,
    epilog="Example: millpond gateway --port 8080",
)


@app.callback()
def gateway(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 is any free one.")] = 8080,
    host: Annotated[
        str, typer.Option(help="The address; one beyond loopback needs a configured token.")
    ] = "127.0.0.1",
) -> None:
    """Serve the gateway for the configured broker until SIGTERM; without tokens, on loopback only."""
    if context.invoked_subcommand is not None:
        return
    import logging

    from millpond.tasks.extras import require_extras
    from millpond.tasks.process.configured_broker import settings_with_broker
    from millpond.tasks.process.logs import log_to_stderr

    require_extras("millpond gateway", "gateway")
    from millpond.producer.gateway.serving import serve

    settings = settings_with_broker()
    log_to_stderr(settings.log_format, level=logging.WARNING)

    def print_url(url: str) -> None:
        typer.echo(f"The gateway is at {url}, until Ctrl-C")

    serve(settings, host=host, port=port, on_ready=print_url)


@app.command(epilog="Example: millpond gateway token shop --kind 'email.*'")
def token(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name for its holder: letters, digits, . _ -")
    ],
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="A kind that it allows, or a pattern; may be repeated."),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            metavar="QUEUE",
            help="A further queue that it may name, or a pattern; may be repeated.",
        ),
    ] = None,
    right: Annotated[
        list[str] | None,
        typer.Option(
            "--right", metavar="RIGHT", help="What its tasks may do: shed or priority; may be repeated."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token, and print it with the lines for millpond.toml, which hold its hash."""
    import json

    from millpond.producer.gateway.tokens import hash_token, new_token

    secret = new_token()
    rules = {"kinds": kind or ["*"], "queues": queue or [], "rights": right or []}
    settings = _make_token_settings({"name": name, "hash": hash_token(secret), **rules}).model_dump()
    if as_json:
        print(json.dumps({"token": secret, **settings}))
        return
    print(f"{secret}\n")
    print("Keep it: it is not shown again. For millpond.toml:\n")
    print("[[gateway.tokens]]")
    for key, value in settings.items():
        print(f"{key} = {json.dumps(value)}")


def _make_token_settings(fields: dict[str, Any]) -> "GatewayToken":
    """Return the settings of a token. Raises `BadInput` for a wrong name or right."""
    from pydantic import ValidationError

    from millpond.tasks.errors import BadInput
    from millpond.tasks.settings import GatewayToken

    try:
        return GatewayToken.model_validate(fields)
    except ValidationError as error:
        if error.errors()[0]["loc"][0] == "rights":
            raise BadInput(
                f"{', '.join(fields['rights'])} is no right of a token: use shed or priority"
            ) from None
        raise BadInput(
            f"{fields['name']!r} cannot name a token: use 1 to 60 letters, digits, . _ -"
        ) from None
