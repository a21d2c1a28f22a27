"""The connection on which a process receives changes of the control state and of the ready lists.

Each change of the control state (cancellations, drained pools) is published as its epoch. The replies and
notices for the watcher (watcher.py) arrive on the same connection.
"""

import logging
import time
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from millpond.broker.consume.fetch_call import make_connection_error
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.watcher import Watcher
from millpond.broker.control import state
from millpond.broker.control.state import ControlState
from millpond.broker.errors import BrokerError
from millpond.broker.keys import epoch_key

logger = logging.getLogger(__name__)

#: How often a drained process reads whether its pool was resumed, seconds.
DRAINED_POLL_SECONDS = 5

#: The name of the handler of a channel for what arrives on this connection.
CONTROL = "CONTROL"


class ControlListener:
    """The subscription of one channel, which keeps the control state of its process up to date."""

    def __init__(self, channel: Any, in_flight: InFlightMessages) -> None:
        self.client = channel.new_client()
        self.watcher = Watcher(in_flight.name, channel.store, self.connect)
        self._channel = channel
        self._in_flight = in_flight
        self.is_subscribed = False
        #: True from the request to subscribe until its reply.
        self._awaits_subscription = False
        self._read_at = 0.0

    def connect(self) -> Any:
        """Connect if necessary, and return the connection, which the poller watches."""
        return self._channel.connection.cycle.connect_watched(self._channel, self.client, CONTROL)

    @property
    def due_at(self) -> float:
        """When a drained process reads the control state again (monotonic seconds)."""
        return self._read_at + DRAINED_POLL_SECONDS

    def on_tick(self, now: float) -> None:
        """Subscribe if that is not done. In a drained pool, read the control state if it is time to.

        A drained process makes no other calls, so it would not notice that this connection is dead.
        """
        if not self.is_subscribed:
            self._subscribe()
        elif self._in_flight.drained and now > self.due_at:
            self.read_changes()

    def _subscribe(self) -> None:
        """Subscribe to the control state, and read its present value."""
        self.connect().send_command("SUBSCRIBE", epoch_key(self._channel.global_keyprefix))
        self.is_subscribed = self._awaits_subscription = True
        self.watcher.begin_tracking()
        self._read_state()

    def read_changes(self) -> None:
        """Read the changes since the known control state, and act on them."""
        self._read_state(self._in_flight.control)

    def _read_state(self, since: ControlState | None = None) -> None:
        """Read the control state, or the changes since an earlier one, and act on it.

        Raises redis-py's `ConnectionError` if it cannot be read, so that the worker connects again.
        """
        if self._in_flight.of_channel:
            return  # the user of a channel starts no tasks, so the control state does not concern it
        self._read_at = time.monotonic()
        try:
            control = state.read_state(self._channel.store, since)
        except BrokerError as error:
            raise RedisConnectionError(str(error)) from error
        before = self._in_flight.control
        if control.epoch and control.epoch == before.epoch and (since is not None or control == before):
            return
        self._in_flight.control = control
        for lease in self._in_flight.leases.values():
            lease.fetchable = True  # the pool may have been resumed
        self._in_flight.on_control(self._acknowledge_epoch)

    def _acknowledge_epoch(self) -> None:
        """Acknowledge the epoch of the known control state."""
        try:
            state.acknowledge_epoch(self._channel.store, self._in_flight.name, self._in_flight.control.epoch)
        except BrokerError as error:
            logger.warning("%s cancel() and drain() will time out waiting for this process.", error)

    def on_readable(self) -> None:
        """Handle everything that has arrived.

        It may be a change of the control state, a notice of a changed ready list, or a reply for the watcher.
        Raises redis-py's `ConnectionError` if the server refuses the subscription.
        """
        connection = self.client.connection
        while True:
            try:
                received = connection.read_response(push_request=True)
            except ResponseError as error:
                if self._awaits_subscription:  # the first reply; those for the watcher come after it
                    raise make_connection_error("the subscription to its control state", error) from error
                received = error
            match received:  # a reply for the watcher is never a list
                case [b"message", *_]:
                    self.read_changes()
                case [b"invalidate", keys]:
                    self.watcher.on_notice(keys)
                case [*_]:
                    self._awaits_subscription = False
                case _:
                    self.watcher.on_reply(received)
            if not connection.can_read(timeout=0):
                return
