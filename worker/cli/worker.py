"""`millpond worker POOL…`: run the processes of pools until a signal stops them."""

import os
from typing import Annotated

import typer

app = typer.Typer()

#: Options of `celery worker` that are refused, and their replacements.
OPTIONS_OF_CELERY = {
    "--concurrency": "`concurrency` of the pool, in millpond.toml",
    "--pool": "`executor` of the pool, `prefork` or `threads`; others: the transport alone",
    "--queues": "`queues` of the pool",
    "--autoscale": "a fixed number of slots: scale processes or containers, by `LLEN` or `millpond metrics`",
    "--beat": "`celery beat` beside it, or `millpond scheduler`, of which any number may run",
    "--max-tasks-per-child": "`max_tasks_per_child` of the pool",
    "--max-memory-per-child": "`max_memory_per_child_mb` of the pool",
    "--time-limit": "`hard_limit_seconds` of the queue, or the task's own",
    "--soft-time-limit": "`soft_limit_seconds` of the queue, or the task's own",
    "--prefetch-multiplier": "`prefetch` of the pool",
    "--loglevel": "the application's `setup_logging` signal; without it the level is INFO",
    "--hostname": "names by pool and number, as in `default.1@host`",
    "--detach": "a service manager: deploy/systemd",
    "--purge": "`celery purge`",
}
_SHORT = {"-c": "concurrency", "-P": "pool", "-Q": "queues", "-B": "beat", "-l": "loglevel", "-n": "hostname"}
SHORT_OPTIONS_OF_CELERY = {short: OPTIONS_OF_CELERY[f"--{name}"] for short, name in _SHORT.items()}


@app.command(
    epilog="Example: MILLPOND_BROKER_URL=redis://broker/0 millpond worker email files",
    context_settings={"obj": {"instead_of_options": OPTIONS_OF_CELERY | SHORT_OPTIONS_OF_CELERY}},
)
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
    from millpond.tasks.process.configured_broker import apply_settings_with_broker
    from millpond.tasks.process.logs import log_to_stderr
    from millpond.tasks.settings import settings
    from millpond.worker.supervise.supervisor import supervise

    if app is not None:
        os.environ["MILLPOND_APP"] = app
        settings.cache_clear()
    if (own_app := settings().app) is not None and settings().broker_url is not None:
        _use_prefix_of_app(own_app)
    log_to_stderr(apply_settings_with_broker().log_format)
    raise typer.Exit(supervise(pools))


def _use_prefix_of_app(app: str) -> None:
    """Set the application's own key prefix in the environment, unless the settings have one.

    Raises `SettingsError` if the application cannot be imported.
    """
    from millpond.tasks.application_broker import ask_application
    from millpond.tasks.settings import settings

    prefix = ask_application(app).key_prefix
    if prefix and not settings().key_prefix:
        os.environ["MILLPOND_KEY_PREFIX"] = prefix
        settings.cache_clear()
