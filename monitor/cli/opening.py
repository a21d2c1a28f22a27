"""Open the store of the configured broker for the length of a command."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from millpond.broker.connection import Store, connect
from millpond.broker.inspect import depth
from millpond.tasks.errors import UnknownQueue
from millpond.tasks.name_suggestions import unknown
from millpond.tasks.process.running_up import configured_broker, settings_or_nearby
from millpond.tasks.settings import settings


@contextmanager
def opened() -> Iterator[Store]:
    """Yield the store that the settings name, or that of a `millpond up` nearby; raise `SettingsError`."""
    chosen = settings_or_nearby(lambda line: print(line, file=sys.stderr))
    store = connect(
        configured_broker(chosen), prefix=chosen.key_prefix, timeout_seconds=chosen.broker_timeout_seconds
    )
    try:
        yield store
    finally:
        store.close()


def known(store: Store, queue: str) -> None:
    """Raise `UnknownQueue` for a queue that is not in the table and was never declared."""
    names = sorted({*settings().table.queues, *depth.queues(store)})
    if queue not in names:
        raise UnknownQueue(unknown("queue", queue, names))
