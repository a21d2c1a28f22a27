"""Open the store of the configured broker for the length of a command."""

from collections.abc import Iterator
from contextlib import contextmanager

from broker.connection import Store, connect
from tasks.settings import configured_broker, settings


@contextmanager
def opened() -> Iterator[Store]:
    """Yield the store that the settings name. Raises `SettingsError` when they name none."""
    chosen = settings()
    store = connect(
        configured_broker(chosen), prefix=chosen.key_prefix, timeout_seconds=chosen.broker_timeout_seconds
    )
    try:
        yield store
    finally:
        store.close()
