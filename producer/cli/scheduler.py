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
    from millpond.tasks.process.configured_broker import apply_settings_with_broker
    from millpond.tasks.process.logs import log_to_stderr

    settings = apply_settings_with_broker(app)
    log_to_stderr(settings.log_format)
    run_scheduler(settings, app=app)
