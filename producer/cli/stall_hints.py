"""Print the reason why a command waits, once, when none of its tasks has ended for some time."""

import threading
from collections.abc import Callable
from contextlib import suppress

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.control.drain import read_drained_pools
from millpond.broker.errors import BrokerError
from millpond.broker.inspect.depth import read_depth
from millpond.broker.inspect.task_lookup import find_task
from millpond.broker.task_state import TaskState
from millpond.producer.cli.client_session import Session
from millpond.producer.cli.counters import Counters
from millpond.tasks.settings import settings

#: The time without a result after which the command prints the reason.
QUIET_SECONDS = 10.0


class StallWatch:
    """Watches the counters of a command in a thread, during a `with` block.

    Calls `print` once, with the reason, if no task has ended for `QUIET_SECONDS`.
    """

    def __init__(self, session: Session, counters: Counters, print: Callable[[str], None]) -> None:
        self._session = session
        self._counters = counters
        self._print = print
        self._ended = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._watch_results, name="stall-watch", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch_results(self) -> None:
        """Print a hint and return when no task has ended for `QUIET_SECONDS`. The loop of the thread."""
        done = 0
        while not self._ended.wait(QUIET_SECONDS):
            with suppress(BrokerError):  # the sending and the reading thread report an unreachable broker
                if done == self._counters.done and (hint := explain_stall(self._session, self._counters)):
                    self._print(hint)
                    return
            done = self._counters.done


def explain_stall(session: Session, counters: Counters) -> str | None:
    """Return the reason why the task that has been pending longest has not ended, None if none was found."""
    id, label = counters.longest_pending()
    if not id:
        return None
    store = session.client.store
    location = find_task(store, id)
    if location is not None and location.state is TaskState.DELAYED and location.retries:
        runs = f"{location.retries} {'run' if location.retries == 1 else 'runs'}"
        return f"{label}: delayed for a retry after {runs}; the log of the workers says why"
    if location is not None and location.state is TaskState.READY:
        return _find_fetch_obstacle(store, location.queue)
    if location is None and not counters.sent:  # the first send waits for room in the queue
        return _find_fetch_obstacle(store, session.queue)
    return None


def _find_fetch_obstacle(store: Store, queue: str) -> str | None:
    """Return the reason why no worker fetches from a queue, None if a worker can."""
    if limits.read_limits(store, queue).paused:
        return f"the queue {queue} is paused: resume it with millpond queue resume {queue}"
    pools = settings().table.pools_of(queue)
    if pools and read_drained_pools(store).keys() >= set(pools):
        return f"the pool {pools[0]} is drained: resume it with millpond resume {pools[0]}"
    if not read_depth(store, queue).consumers:
        pool = pools[0] if pools else "POOL"
        return f"no worker fetches from the queue {queue}: start one with millpond worker {pool}"
    return None
