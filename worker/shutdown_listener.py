"""Read the control state while a worker process stops and its event loop no longer receives it."""

import threading
from contextlib import suppress

from millpond.broker.connection import Store
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.control import state
from millpond.broker.errors import BrokerError

#: The seconds between two reads.
READ_SECONDS = 0.5


class ShutdownListener:
    """Reads the control state in its own thread, so that a broker that hangs blocks nothing."""

    def __init__(self, store: Store, in_flight: InFlightMessages) -> None:
        self._store = store
        self._in_flight = in_flight
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start the thread that reads the control state into `in_flight`."""
        threading.Thread(target=self._read_states, name="millpond-shutdown", daemon=True).start()

    def stop(self) -> None:
        """Stop reading."""
        self._stopped.set()

    def _read_states(self) -> None:
        """Read the control state every `READ_SECONDS` until stopped."""
        while not self._stopped.wait(READ_SECONDS):
            with suppress(BrokerError):  # the drain goes on without a broker too
                self._in_flight.control = state.read_state(self._store)
