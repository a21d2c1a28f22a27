"""Poll the connections of turns and waits beside kombu's own."""

from time import monotonic
from typing import Any

from kombu.transport import redis as stock

from millpond.broker.consume.fetcher import NEWS, TURN, WAIT


class Poller(stock.MultiChannelPoller):
    """kombu's poller, which also gives each intake its tick before every poll."""

    def __init__(self) -> None:
        super().__init__()
        self.hub: Any = None
        self._timer: Any = None
        self._wakes_at = 0.0

    def on_poll_start(self) -> None:
        """Prepare kombu's connections, then let the intakes send what it is time for."""
        super().on_poll_start()
        for channel in tuple(self._channels):
            if channel.intake is not None:
                channel.intake.on_tick()
                self.wake_up_in(channel.intake.seconds_to_next())

    def wake_up_in(self, seconds: float | None) -> None:
        """Make the event loop turn when something is due; without one, `get` looks every second.

        The loop asks its timers how long it may sleep before it ticks: what a tick plans counts from its
        next. So whoever learns of something due outside the tick plans it there and then.
        """
        if seconds is None or self.hub is None:
            return
        at = monotonic() + seconds
        if self._timer is not None:
            if self._wakes_at <= at:
                return
            self._timer.cancel()
        self._timer, self._wakes_at = self.hub.call_later(seconds, self._awake), at

    def _awake(self) -> None:
        self._timer = None

    def connected(self, channel: Any, client: Any, kind: str) -> Any:
        """Return the connection of a client, connected and watched by the poller."""
        if not self._client_registered(channel, client, kind):
            self._register(channel, client, kind)
        return client.connection

    def on_readable(self, fileno: int) -> None:
        """Pass a reply on; that of a turn also when there is no more room.

        It may bring what was asked for when there was.
        """
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if kind in (TURN, WAIT, NEWS):
            channel.handlers[kind]()
            if channel.intake is not None:
                self.wake_up_in(channel.intake.seconds_to_next())
        else:
            super().on_readable(fileno)

    def maybe_restore_messages(self) -> None:
        """Do nothing: leases see to what was not settled."""

    def on_poll_init(self, poller: Any) -> None:
        """Take the event loop's poller."""
        self.poller = poller


class Tick:
    """Be called in every turn of the event loop, for the connections of one transport."""

    def __init__(self, transport: Any, loop: Any) -> None:
        self._transport = transport
        self._cycle = transport.cycle
        self._loop = loop

    @property
    def is_over(self) -> bool:
        """Say whether every channel of the transport was closed, as after a lost connection."""
        return not self._cycle._channels

    def __call__(self) -> None:
        """Let the intakes send what it is time for, and watch what they opened."""
        cycle, loop = self._cycle, self._loop
        cycle.on_poll_start()
        for fd in cycle.fds.keys() - loop.readers.keys():
            loop.add_reader(fd, self._transport.on_readable, fd)
