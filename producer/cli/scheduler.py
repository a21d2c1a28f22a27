"""`millpond scheduler`: send the scheduled tasks of the settings, and those of a Celery application."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: MILLPOND_BROKER_URL=redis://broker/0 millpond scheduler")
def scheduler(
    app: Annotated[
        str | None,
        typer.Option(
            "--app",
            "-A",
            metavar="APP",
            help="A Celery application, as `celery -A` names it, whose beat_schedule is sent too.",
        ),
    ] = None,
) -> None:
    """Send the scheduled tasks of millpond.toml, its [schedule.NAME] tables, until SIGTERM or Ctrl-C.

    Any number may run: one leads, and each period is sent once.
    """
    from millpond.producer.scheduler_process import run_scheduler
    from millpond.tasks.process.local_instance import apply_local_instance
    from millpond.tasks.process.logs import log_to_stderr

    if app is not None:
        _use_application_broker(app)
    settings = apply_local_instance()
    log_to_stderr(settings.log_format)
    run_scheduler(settings, app=app)


def _use_application_broker(app: str) -> None:
    """Use the broker of a Celery application's own settings if Millpond's settings name none.

    Sets `MILLPOND_BROKER_URL` in the environment of this process.
    """
    import os

    from millpond.tasks.celery_application import broker_url, load_app
    from millpond.tasks.settings import settings

    url = None if settings().broker_url else broker_url(load_app(app))
    if url:
        os.environ["MILLPOND_BROKER_URL"] = url
        settings.cache_clear()
        typer.echo(f"using the broker of {app}'s own settings", err=True)
