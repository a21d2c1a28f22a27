"""Poll the connections of turns and waits beside kombu's own."""

from typing import Any

from kombu.transport import redis as stock

from broker.intake import NEWS, TURN, WAIT


class Poller(stock.MultiChannelPoller):
    """kombu's poller, which also gives each intake its tick before every poll."""

    def __init__(self) -> None:
        super().__init__()
        self.hub: Any = None
        self._timer: Any = None

    def on_poll_start(self) -> None:
        """Prepare kombu's connections, then let the intakes send what it is time for."""
        super().on_poll_start()
        for channel in tuple(self._channels):
            if channel.intake is not None:
                channel.intake.on_tick()
                self._wake_up_in(channel.intake.seconds_to_next())

    def _wake_up_in(self, seconds: float | None) -> None:
        """Make the event loop turn again when something is due; without a loop, `get` looks every second."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and self.hub is not None:
            self._timer = self.hub.call_later(seconds, _nothing)

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
        else:
            super().on_readable(fileno)

    def maybe_check_brpop_health(self) -> None:
        """Drop a waiting connection whose reply is overdue: it is half-open."""
        super().maybe_check_brpop_health()
        for channel in tuple(self._channels):
            if channel.intake is not None and channel.intake.overdue(channel.health_check_interval):
                channel.intake.wait_client.connection.disconnect()

    def maybe_restore_messages(self) -> None:
        """Do nothing: leases see to what was not settled."""

    def on_poll_init(self, poller: Any) -> None:
        """Take the event loop's poller."""
        self.poller = poller


def _nothing() -> None:
    """Let the event loop turn."""
