"""`millpond worker POOL…`: run the processes of pools until a signal stops them."""

from typing import Annotated

import typer

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(epilog="Example: MILLPOND_BROKER_URL=redis://broker/0 millpond worker email files")
def worker(
    pools: Annotated[list[str], typer.Argument(metavar="POOL", help="Pools of the table, by name.")],
) -> None:
    """Run the processes of pools, and restart those that die.

    SIGTERM or Ctrl-C: finish the running tasks, release the others at the drain deadline, exit with 0; a
    second signal does not wait. SIGHUP: replace every process; each finishes its running tasks.
    """
    from millpond.tasks.process.logs import log_to_stderr
    from millpond.tasks.process.running_up import adopt_local
    from millpond.worker.supervise.supervisor import supervise

    log_to_stderr(adopt_local(lambda line: typer.echo(line, err=True)).log_format)
    raise typer.Exit(supervise(pools))
