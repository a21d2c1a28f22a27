"""Read the server's clock: the one that all hosts agree on."""

from broker.connection import Store, clear_errors


def now_ms(store: Store) -> int:
    """Return the server's time in ms since the epoch."""
    with clear_errors("reading the broker's clock"):
        seconds, micros = store.client.time()
    return int(seconds) * 1000 + int(micros) // 1000
