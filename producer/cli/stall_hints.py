"""Say what a command waits for when nothing of it ends: once, while it goes on waiting."""

import threading
from collections.abc import Callable
from contextlib import suppress

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.control.drain import drained
from millpond.broker.errors import BrokerError
from millpond.broker.inspect.depth import depth
from millpond.broker.inspect.task_lookup import find
from millpond.broker.task_state import TaskState
from millpond.producer.cli.client_session import Session
from millpond.producer.cli.counters import Count
from millpond.tasks.settings import settings

#: How long no result may come before the command says what it waits for.
QUIET_SECONDS = 10.0


class Watch:
    """Look, in a thread of its own while the `with` block runs, whether anything ends, and `say` why not."""

    def __init__(self, session: Session, count: Count, say: Callable[[str], None]) -> None:
        self._session = session
        self._count = count
        self._say = say
        self._over = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _look(self) -> None:
        done = 0
        while not self._over.wait(QUIET_SECONDS):
            with suppress(BrokerError):  # a broker that is away ends the command elsewhere
                if done == self._count.done and (reason := why_nothing_ends(self._session, self._count)):
                    self._say(reason)
                    return
            done = self._count.done


def why_nothing_ends(session: Session, count: Count) -> str | None:
    """Say what keeps the task that has been under way longest from ending, if that is worth a line."""
    id, label = count.oldest()
    if not id:
        return None
    store = session.client.store
    place = find(store, id)
    if place is not None and place.state is TaskState.DELAYED and place.retries:
        runs = f"{place.retries} {'run' if place.retries == 1 else 'runs'}"
        return f"{label}: put off after {runs}, and tried again; the log of the workers says why"
    if place is not None and place.state is TaskState.READY:
        return _what_holds_up(store, place.queue)
    if place is None and not count.sent:  # it waits for room
        return _what_holds_up(store, session.queue)
    return None


def _what_holds_up(store: Store, queue: str) -> str | None:
    """Say why nothing is taken from a queue; None where something is."""
    if limits.read(store, queue).paused:
        return f"the queue {queue} is paused: let it go on with millpond queue resume {queue}"
    pools = settings().table.pools_of(queue)
    if pools and drained(store).keys() >= set(pools):
        return f"the pool {pools[0]} is drained: let it go on with millpond resume {pools[0]}"
    if not depth(store, queue).consumers:
        pool = pools[0] if pools else "POOL"
        return f"no worker takes from the queue {queue}: start one with millpond worker {pool}"
    return None
