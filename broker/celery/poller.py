"""Poll the connections of fetchers together with kombu's own connections."""

from time import monotonic
from typing import Any

from kombu.transport import redis as stock

from millpond.broker.celery.backend_notices import BackendNotifier
from millpond.broker.consume.control_listener import CONTROL
from millpond.broker.consume.fetcher import FETCH, POLL_SECONDS, WAIT
from millpond.broker.consume.in_flight import MAX_FETCH


class Poller(stock.MultiChannelPoller):
    """kombu's poller, which calls `on_tick` of each fetcher before every poll."""

    def __init__(self) -> None:
        super().__init__()
        self.hub: Any = None
        self._notices = BackendNotifier()
        #: The id of the thread in which the event loop runs.
        self.thread = 0
        self._timer: Any = None
        self._wakes_at = 0.0

    def on_poll_start(self) -> None:
        """For each channel, register kombu's own connections and send the fetch calls that are due."""
        for channel in tuple(self._channels):
            if channel.polls_kombu and channel.qos.can_consume():
                self._register_BRPOP(channel)
            if channel.active_fanout_queues:
                self._register_LISTEN(channel)
            if channel.fetcher is not None:
                max_fetch = MAX_FETCH if self.hub is not None else 1
                if channel.in_flight.max_fetch != max_fetch:  # because its __setattr__ is slow
                    channel.in_flight.max_fetch = max_fetch
                if monotonic() >= channel.gather_at:
                    channel.gather_all_messages()
                channel.fetcher.on_tick()
                self.wake_up_in(channel.fetcher.seconds_to_next())
                if monotonic() >= self._notices.due_at:
                    self._notices.tick(channel)

    def wake_up_in(self, seconds: float | None) -> None:
        """Wake the event loop after some seconds at the latest. With None, or without a loop, do nothing.

        Without a loop, `get` polls every second. The loop decides how long it may sleep before it ticks, so a
        timer that is set in a tick counts from the next tick on. So it is also called outside of ticks, as
        soon as something is planned.
        """
        if seconds is None or self.hub is None:
            return
        wakes_at = monotonic() + seconds
        if self._timer is not None:
            if self._wakes_at <= wakes_at:
                return
            self._timer.cancel()
        self._timer, self._wakes_at = self.hub.call_later(seconds, self._clear_timer), wakes_at

    def _clear_timer(self) -> None:
        self._timer = None

    def subscribe(self, channel: Any) -> None:
        """Subscribe a channel to its fanout queues at once, also if it is subscribed to some of them.

        A worker reports that it is ready before the first turn of its loop, in which kombu would subscribe: a
        command of remote control that is sent in between would be lost. kombu does not subscribe to a queue
        that is added later. Without an event loop the first subscription is made in `get`.
        """
        before = channel._in_listen
        if self.hub is None and not before:
            return
        self._register_LISTEN(channel)
        if before and channel._in_listen is before:
            channel._subscribe()

    def connect_watched(self, channel: Any, client: Any, handler_name: str) -> Any:
        """Connect a client if necessary, let the poller watch its connection, and return that.

        The poller calls the channel's handler of this name when something has arrived.
        """
        if not self._client_registered(channel, client, handler_name):
            self._register(channel, client, handler_name)
        return client.connection

    def on_readable(self, fileno: int) -> None:
        """Call the handler of a connection on which something has arrived.

        The handlers of fetchers and subscriptions are called even if there is no room for messages: a fetch
        brings only messages that were requested while there was room, and a subscription also brings the
        replies to its health checks. kombu reads nothing while there is no room, and then considers the
        connection dead.
        """
        channel, handler_name = self._fd_to_chan.get(fileno, (None, None))
        if handler_name in (FETCH, WAIT, CONTROL):
            channel.handlers[handler_name]()
            if channel.fetcher is not None:
                self.wake_up_in(channel.fetcher.seconds_to_next())
        elif handler_name == "LISTEN":
            channel.handlers[handler_name]()
        else:
            super().on_readable(fileno)

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Deliver one message, for `drain_events`. Raises `queue.Empty` if none came within the time-out.

        It may also raise it sooner, when a fetch is due. `drain_events` then calls it again.
        """
        self.on_poll_start()
        times = [self._seconds_to_call(channel) for channel in self._channels]
        if times:
            timeout = min(*times, POLL_SECONDS if timeout is None else timeout)
        super().get(callback, timeout)

    def _seconds_to_call(self, channel: Any) -> float:
        """Return the seconds until a channel gathers messages or fetches, `POLL_SECONDS` at most."""
        if channel.fetcher is None:
            return POLL_SECONDS
        times = [POLL_SECONDS, channel.gather_at - monotonic(), channel.fetcher.seconds_to_next()]
        return float(max(0.0, min(seconds for seconds in times if seconds is not None)))

    def handle_event(self, fileno: int, event: int) -> Any:
        """Handle an event of a connection. Return None if it delivered no message: `drain_events` goes on."""
        channel, handler_name = self._fd_to_chan.get(fileno, (None, None))
        before = channel.delivered if channel is not None else 0
        result = super().handle_event(fileno, event)
        return result if handler_name not in (FETCH, WAIT, CONTROL) or channel.delivered != before else None

    def maybe_restore_messages(self) -> None:
        """Do nothing: messages that were not settled become ready again when their lease expires."""

    def on_poll_init(self, poller: Any) -> None:
        """Use the event loop's poller. kombu would also restore messages that were not settled."""
        self.poller = poller


class TickCallback:
    """The callback in every iteration of the event loop for the connections of one transport."""

    def __init__(self, transport: Any, loop: Any) -> None:
        self._transport = transport
        self._poller = transport.cycle
        self._loop = loop

    @property
    def is_over(self) -> bool:
        """True if every channel of the transport was closed, as after a lost connection."""
        return not self._poller._channels

    def __call__(self) -> None:
        """Send the fetchers' calls that are due, and let the loop watch the connections that were opened."""
        poller, loop = self._poller, self._loop
        poller.on_poll_start()
        for fd in poller.fds.keys() - loop.readers.keys():
            loop.add_reader(fd, self._transport.on_readable, fd)
