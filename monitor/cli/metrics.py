"""Offer `millpond metrics`: what Prometheus gets from Flower, once, as text."""

import typer

app = typer.Typer()


@app.command(epilog="Example: millpond metrics > /var/lib/node_exporter/millpond.prom")
def metrics() -> None:
    """Write the metrics of queues, pools and tasks as Prometheus reads them, where Flower does not run."""
    from millpond.broker.errors import BrokerError
    from millpond.monitor.cli.opening import opened
    from millpond.monitor.metrics import exposition
    from millpond.monitor.snapshot import read
    from millpond.tasks.settings import settings

    with opened() as store:
        try:
            print(exposition(read(store, settings().table)).decode(), end="")
        except BrokerError as error:
            print(exposition(error).decode(), end="")
