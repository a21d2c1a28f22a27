"""`millpond metrics`: print the metrics that Flower serves to Prometheus."""

import typer

app = typer.Typer()


@app.command(epilog="Example: millpond metrics > /var/lib/node_exporter/millpond.prom")
def metrics() -> None:
    """Print the metrics of queues, pools and tasks in Prometheus' text format, where Flower does not run."""
    from millpond.broker.errors import BrokerError
    from millpond.monitor.cli.store import open_store
    from millpond.monitor.diagnosis import diagnose_all
    from millpond.monitor.metrics import exposition
    from millpond.monitor.snapshot import read
    from millpond.tasks.settings import settings

    with open_store() as store:
        try:
            seen = read(store, settings().table)
            print(exposition(seen, diagnose_all(store, seen)).decode(), end="")
        except BrokerError as error:
            print(exposition(error).decode(), end="")
