"""`millpond metrics`: print the metrics that Flower serves to Prometheus."""

import typer

app = typer.Typer()


@app.command(epilog="Example: millpond metrics > /var/lib/node_exporter/millpond.prom")
def metrics() -> None:
    """Print the metrics of queues, pools and tasks in Prometheus' text format, if Flower does not run."""
    from millpond.broker.errors import BrokerError
    from millpond.monitor.cli.store import open_store
    from millpond.monitor.diagnosis import diagnose_all
    from millpond.monitor.metrics import metrics_text
    from millpond.monitor.snapshot import read_snapshot
    from millpond.tasks.settings import settings

    with open_store() as store:
        try:
            snapshot = read_snapshot(store, settings().table)
            print(metrics_text(snapshot, diagnose_all(store, snapshot)).decode(), end="")
        except BrokerError as error:
            print(metrics_text(error).decode(), end="")
