"""The events that workers send, heard as Flower hears them, and the figures of those that were sent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from millpond.broker.connection import Store
from millpond.broker.stats import heartbeats
from millpond.tasks.app import celery_app
from millpond.tasks.settings import Settings
from tests.conftest import Eventually


@contextmanager
def hear_events(
    settings: Settings, hear: Callable[[dict[str, Any]], None], eventually: Eventually
) -> Iterator[None]:
    """Call `hear` for each event, from the next heartbeat of a worker on, until the block is left."""
    is_heard = Event()

    def pass_on(event: dict[str, Any]) -> None:
        is_heard.set()
        hear(event)

    app = celery_app(settings)
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": pass_on})
        thread = Thread(target=receiver.capture, kwargs={"limit": None, "timeout": None})
        thread.start()
        eventually(is_heard.is_set, 20)
        yield
        receiver.should_stop = True  # it looks once a second
        thread.join(10)


def totals_after(store: Store, runs: int) -> heartbeats.Totals | None:
    """Return the totals of the pool `default` once they count so many runs, shown or left out; else None."""
    [found] = heartbeats.read_totals(store, ["default"])
    return found if found is not None and found.shown + found.left_out == runs else None
