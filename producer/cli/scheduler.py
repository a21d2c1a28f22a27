"""`millpond scheduler`: send the scheduled tasks of the settings."""

import typer

app = typer.Typer()


@app.command(epilog="Example: MILLPOND_BROKER_URL=redis://broker/0 millpond scheduler")
def scheduler() -> None:
    """Send the scheduled tasks of millpond.toml, its [schedule.NAME] tables, until SIGTERM or Ctrl-C.

    Any number may run: one leads, and each period is sent once.
    """
    from millpond.producer.scheduler_process import schedule
    from millpond.tasks.process.logs import log_to_stderr
    from millpond.tasks.process.running_up import adopt_local

    configured = adopt_local(lambda line: typer.echo(line, err=True))
    log_to_stderr(configured.log_format)
    schedule(configured)
