"""Offer `millpond scheduler`: send the periodic tasks of the settings."""

import typer

app = typer.Typer()


@app.command(epilog="Example: MILLPOND_BROKER_URL=redis://broker/0 millpond scheduler")
def scheduler() -> None:
    """Send the periodic tasks of millpond.toml, its [schedule.NAME] tables, until SIGTERM or Ctrl-C.

    Run several for safety: one leads, and a period is sent once.
    """
    from millpond.producer.scheduler_process import schedule
    from millpond.tasks.process.logs import log_to_stderr
    from millpond.tasks.settings import settings

    log_to_stderr(settings().log_format)
    schedule(settings())
