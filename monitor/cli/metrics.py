"""`millpond metrics`: print the metrics that Flower serves to Prometheus."""

import typer

from millpond.monitor.cli.store import open_store

app = typer.Typer()


@app.command(epilog="Example: millpond metrics > /var/lib/node_exporter/millpond.prom")
def metrics() -> None:
    """Print the metrics of queues, pools and tasks in Prometheus' text format, if Flower does not run."""
    from millpond.monitor.metrics import read_metrics
    from millpond.tasks.settings import settings

    with open_store() as store:
        print(read_metrics(store, settings().table).decode(), end="")
