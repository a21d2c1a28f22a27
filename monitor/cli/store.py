"""The broker of a command: open its store, and check the name of a queue.

Importing this module is quick: what needs the broker is imported in its functions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from millpond.tasks.errors import UnknownQueue

if TYPE_CHECKING:
    from millpond.broker.connection import Store


@contextmanager
def open_store() -> "Iterator[Store]":
    """Yield a store of the configured broker, or else of a running `millpond up`. Raises `SettingsError`."""
    from millpond.broker.connection import connect
    from millpond.tasks.process.configured_broker import require_broker_url, settings_with_broker

    configured = settings_with_broker()
    store = connect(require_broker_url(configured), **configured.broker_options)
    try:
        yield store
    finally:
        store.close()


def require_queue(store: "Store", queue: str) -> None:
    """Raise `UnknownQueue` unless the queue is in the table or was declared."""
    from millpond.monitor.snapshot import read_queue_names
    from millpond.tasks.name_suggestions import unknown_name_text
    from millpond.tasks.settings import settings

    names = read_queue_names(store, settings().table)
    if queue not in names:
        raise UnknownQueue(unknown_name_text("queue", queue, names))
