"""Go on hearing what is cancelled while a worker process stops and its event loop listens no more."""

import threading
from contextlib import suppress

from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import Holder
from millpond.broker.control import state
from millpond.broker.errors import BrokerError

#: How often the server is asked. Nobody waits for the answer.
LOOK_SECONDS = 0.5


class Listening:
    """Read the news again and again, in a thread of its own: a broker that hangs holds nothing up."""

    def __init__(self, store: Store, holder: Holder) -> None:
        self._store = store
        self._holder = holder
        self._over = threading.Event()

    def start(self) -> None:
        """Begin; the holder knows what was heard."""
        threading.Thread(target=self._listen, name="listening", daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()

    def _listen(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            with suppress(BrokerError):  # the drain goes on without a broker too
                self._holder.news = state.read(self._store)
