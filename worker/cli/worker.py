"""`millpond worker POOL…`: run the processes of pools until a signal stops them."""

import os
import sys
from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: MILLPOND_BROKER_URL=redis://broker/0 millpond worker email files")
def worker(
    pools: Annotated[list[str], typer.Argument(metavar="POOL", help="Pools of the table, by name.")],
    app: Annotated[
        str | None,
        typer.Option(
            "--app", "-A", metavar="APP", help="Your own Celery application, as `celery -A` names it."
        ),
    ] = None,
) -> None:
    """Run the processes of pools, and restart those that die.

    SIGTERM or Ctrl-C: finish the running tasks, release the others at the drain deadline, exit with 0. A
    second signal does not wait. SIGHUP: replace every process, and each finishes its running tasks.
    """
    from millpond.tasks.process.local_instance import apply_local_instance
    from millpond.tasks.process.logs import log_to_stderr
    from millpond.tasks.settings import settings
    from millpond.worker.supervise.supervisor import supervise

    if app is not None:
        os.environ["MILLPOND_APP"] = app
        settings.cache_clear()
    if settings().app is not None:
        _use_broker_of_app(str(settings().app))
    log_to_stderr(apply_local_instance().log_format)
    raise typer.Exit(supervise(pools))


def _use_broker_of_app(app: str) -> None:
    """Set the application's own broker and key prefix in the environment, unless the settings have some.

    Another process imports the application, so the supervisor stays small. Raises `SettingsError` with the
    last line of that process's errors if the application cannot be imported.
    """
    import subprocess

    from millpond.tasks.errors import SettingsError
    from millpond.tasks.settings import settings

    command = [sys.executable, "-P", "-m", "millpond.worker.user_app", app]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SettingsError(result.stderr.strip().rpartition("\n")[2].removeprefix("millpond: "))
    url, prefix = (line.partition(" ")[2] for line in result.stdout.splitlines()[-2:])
    if prefix and not settings().key_prefix:
        os.environ["MILLPOND_KEY_PREFIX"] = prefix
    if url and not settings().broker_url:
        os.environ["MILLPOND_BROKER_URL"] = url
        typer.echo(f"using the broker of {app}'s own settings", err=True)
    settings.cache_clear()
