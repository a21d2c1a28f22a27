"""The fetch loop of one channel: one connection calls settle_and_fetch.lua, another waits for a wake token.

Neither blocks the event loop. When a call finds no message, the second connection waits on the wake lists.
The blocking pop takes a token and never a message, so none is lost with a reply. Stock producers push no
token: a few processes watch for their messages and push it (watcher.py). If no process watches, each process
fetches again after a second; otherwise after ten, in case a token was lost. If possible, the next fetch is
pipelined behind the wait: the server carries it out as soon as the wait is over, which saves a round trip.
"""

import math
import time
from time import sleep
from typing import Any

from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millpond.broker.consume import fetch_call
from millpond.broker.consume.control_listener import ControlListener
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.lease_resumption import resume_lease
from millpond.broker.consume.prefetch import AGAIN_SECONDS
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.keys import QueueKeys
from millpond.broker.scripts import script

#: How long a process waits for a wake token before it fetches without one, if no process watches for messages
#: and if one does.
POLL_SECONDS = 1.0
WATCHED_POLL_SECONDS = 10.0

#: How long a reply of the server may take if no socket timeout is set.
REPLY_TIMEOUT_SECONDS = 5.0

#: How long the event loop of an idle process sleeps so that the thread or the child process of a new task can
#: start. A child needs 0.3 ms; with 0.2 ms here a tenth of the tasks started a tenth later (two cores).
START_SECONDS = 0.0005

#: The names of the handlers of a channel for what arrives on the two connections.
FETCH, WAIT = "FETCH", "WAIT"


class Fetcher:
    """The calls of one channel. The poller calls `on_tick` before each poll, `on_…` when a reply arrives."""

    def __init__(self, channel: Any, in_flight: InFlightMessages, *, lease_ms: int) -> None:
        self.channel = channel
        self.in_flight = in_flight
        self.lease_ms = lease_ms
        self.active: set[str] = set()
        self.fetch_client = channel.new_client()
        self.wait_client = channel.new_client()
        self.listener = ControlListener(channel, in_flight)
        self.watcher = self.listener.watcher
        self._reply_timeout: float = channel.socket_timeout or REPLY_TIMEOUT_SECONDS
        self._request: FetchRequest | None = None
        self._requested_at = 0.0
        self._waiting: list[str] | None = None
        #: The wake list of this consumer alone that the wait names; None once a token was pushed to it.
        self._own_wake_key: str | None = None
        self._pipelined: FetchRequest | None = None
        self._wait_ends_at = 0.0
        self._was_full = False
        #: True if messages of a queue wait for a permit of its in-flight limit.
        self._is_limited = False
        self._resumed: set[str] = set()
        # The call of a lost connection gets no reply. Its outcomes are sent again on this connection.
        if in_flight.fetcher is not None:
            in_flight.fetcher.drop_call()
        in_flight.settle_finished()
        in_flight.fetcher = self

    def start_queue(self, keys: QueueKeys) -> None:
        """Begin to consume a queue. After a lost connection, resume the lease on it."""
        lease = self.in_flight.lease_on(keys)
        if keys.queue not in self._resumed:
            resume_lease(self.channel.store, self.in_flight, lease, lease_ms=self.lease_ms)
            self._resumed.add(keys.queue)
        lease.fetchable = True
        self.active.add(keys.queue)
        self.watcher.due_at = 0.0
        if self._waiting is not None and keys.queue not in self._waiting and self._own_wake_key:
            # Messages of this queue would not end the wait in progress.
            fetch_call.push_wake_token(self.channel.store, self._own_wake_key)
            self._own_wake_key = None

    def stop_queue(self, queue: str) -> None:
        """Fetch nothing more from a queue. Its messages in flight are settled as before."""
        self.active.discard(queue)
        self.watcher.leave_seat(queue)

    # Sending

    def on_tick(self) -> None:
        """Send the next call if it is time for one. Otherwise wait for a wake token.

        Raises redis-py's `TimeoutError` if a reply is overdue, which the sockets, being polled, do not raise.
        """
        now = time.monotonic()
        self._check_reply_overdue(now)
        has_loop = self.in_flight.max_fetch != 1  # without an event loop nothing reads from the listener
        if has_loop and (self.in_flight.drained or not self.listener.is_subscribed):
            self.listener.on_tick(now)
        if now >= self.watcher.due_at:
            self.watcher.on_tick(self.active, now, self._reply_timeout)
        self.in_flight.release_overdue(now)
        self._fetch_after_full()
        if self._request is None:
            # A pipelined fetch has all the credit, and credit is given once. So this call only settles then.
            fetching = self.active if self._pipelined is None else set()
            request = fetch_call.take_next_request(self.in_flight, fetching, now)
            if request is not None:
                self._send_fetch(request)
        if self._request is None and self._waiting is None and self._needs_wake_token():
            self._send_wait()

    def _fetch_after_full(self) -> None:
        """After a time without room for messages, mark all queues as fetchable.

        In that time this process did not wait, and other processes may have taken the wake tokens.
        """
        if self._waiting is not None or self._request is not None:
            return
        is_full = self.in_flight.room == 0
        if self._was_full and not is_full:
            for queue in self.active:
                self.in_flight.leases[queue].fetchable = True
        self._was_full = is_full

    def _needs_wake_token(self) -> bool:
        """True if there is room for messages and some queue had none at the last fetch."""
        fetchable = [self.in_flight.leases[queue].fetchable for queue in self.active]
        return not all(fetchable) and self.in_flight.room > 0

    def _check_reply_overdue(self, now: float) -> None:
        """Raise redis-py's `TimeoutError` if the reply to a fetch or a wait is overdue."""
        timeout = self._reply_timeout
        if self._request is not None and now - self._requested_at > timeout:
            self.drop_call()
            raise RedisTimeoutError(f"no reply to a fetch for {timeout} s")
        if self._waiting is not None and now > self._wait_ends_at + timeout:
            self._waiting = self._pipelined = None
            raise RedisTimeoutError(f"no reply to a wait for {timeout} s")

    def wake(self) -> None:
        """Wake the event loop in time for the next call."""
        cycle = getattr(self.channel.connection, "cycle", None)  # a closed channel has no connection
        if cycle is not None:
            cycle.wake_up_in(0.0 if self._is_limited else fetch_call.GATHERED_SECONDS)

    def seconds_to_next(self) -> float | None:
        """Return the seconds until `on_tick` is due if nothing arrives before, or None if it never is."""
        now = time.monotonic()
        times = [self.watcher.due_at]
        if self.in_flight.has_waiting:  # the next tick checks them anyway
            times.append(max(self.in_flight.learned_prefetch.check_at, now + AGAIN_SECONDS))
        if self._request is None:
            if self.in_flight.drained:
                times.append(self.listener.due_at)
            for lease in self.in_flight.leases.values():
                if lease.fetch_at and lease.keys.queue in self.active:
                    times.append(lease.fetch_at)
                if lease.outcomes:
                    times.append(
                        lease.outcomes_since + (0.0 if lease.is_limited else fetch_call.GATHERED_SECONDS)
                    )
        soonest = min(times)
        return None if soonest == math.inf else max(0.0, soonest - now)

    def _send_fetch(self, request: FetchRequest) -> None:
        """Send a call, whose reply `on_reply` will read. If that fails, queue its outcomes again."""
        self._request = request
        self.in_flight.fetch_calls += 1
        try:
            connection = self.channel.connection.cycle.connect_watched(self.channel, self.fetch_client, FETCH)
            connection.send_command(*fetch_call.fetch_command(request, lease_ms=self.lease_ms))
            self._requested_at = time.monotonic()
        except BaseException:
            self.drop_call()
            raise

    def _send_wait(self) -> None:
        """Send the blocking pop of a wake token, with a fetch call pipelined behind it if that is allowed."""
        queues, now = sorted(self.active), time.monotonic()
        connection = self.channel.connection.cycle.connect_watched(self.channel, self.wait_client, WAIT)
        are_watched = all(map(self.watcher.is_watched, queues))
        seconds = WATCHED_POLL_SECONDS if are_watched else POLL_SECONDS
        leases = [self.in_flight.leases[queue] for queue in queues]
        pop = ("BLPOP", *(key for lease in leases for key in lease.wake_keys), seconds)
        request = fetch_call.make_pipelined_request(self.in_flight, self.active, now + seconds)
        if request is None:
            connection.send_command(*pop)
        else:
            fetch = fetch_call.fetch_command(request, lease_ms=self.lease_ms)
            connection.send_packed_command(connection.pack_commands([pop, fetch]))
        self._waiting, self._pipelined, self._wait_ends_at = queues, request, now + seconds
        self._own_wake_key = leases[0].wake_keys[1]
        if not self._is_limited:  # else the queues are not empty: their messages wait for a permit
            self.watcher.on_found_empty(self.active)

    # Receiving

    def on_reply(self) -> None:
        """Read the reply to a call and deliver the fetched messages.

        Raises redis-py's errors: the outcomes of the call are queued again before.
        """
        request = self._request
        if request is None:
            self.fetch_client.connection.disconnect()  # the server has closed the idle connection
            return
        try:
            raw = self.fetch_client.connection.read_response()
        except NoScriptError:
            self._request = None
            request.lease.put_back_outcomes(request.outcomes)
            self._load_script()
            return
        except ResponseError as error:
            self.drop_call()
            raise fetch_call.make_connection_error("to fetch", error) from error
        except BaseException:
            self.drop_call()
            raise
        self._request = None
        self._accept_reply(request, fetch_call.parse_reply(raw))

    def _load_script(self) -> None:
        """Load the source of the script into a server that has lost it."""
        try:
            self.channel.store.client.script_load(script("settle_and_fetch").source)
        except ResponseError as error:
            raise fetch_call.make_connection_error("a script", error) from error

    def _accept_reply(self, request: FetchRequest, reply: fetch_call.Reply) -> None:
        """Deliver the messages of a reply. If the lease of the call had expired, begin a new one."""
        if not reply.lease:
            lease = request.lease
            lease.late += reply.late
            # Resuming the lease logs and counts what was lost, or what the server has forgotten.
            resume_lease(self.channel.store, self.in_flight, lease, lease_ms=self.lease_ms)
            if request.consumer == lease.consumer:
                self.in_flight.replace_lost_lease(lease)
            return
        fetch_call.update_lease(request, reply)
        self._is_limited = any(lease.is_limited for lease in self.in_flight.leases.values())
        if reply.epoch != self.in_flight.control.epoch:  # a lower one: the server has forgotten changes
            self.listener.read_changes()
        was_idle = not self.in_flight.count
        receive = self.in_flight.receive if request.lease.keys.queue in self.active else None
        fetch_call.accept_messages(
            request.lease,
            reply,
            receive or self.channel.deliver,
            keeps_errors=not self.in_flight.of_channel,
            dead_letter=self.in_flight.dead_letter or fetch_call.dead_letter_by_log,
        )
        if was_idle and not request.lease.fetchable and self.in_flight.count:
            # This thread has nothing else to do. If it kept the interpreter's lock, the thread of the new
            # task would wake in vain and sleep once more. It would also take the processor from a child.
            sleep(START_SECONDS)

    def on_wait(self) -> None:
        """Read the reply to a wait: a wake token, or None at its time-out. Then read a pipelined reply."""
        waiting, self._waiting = self._waiting, None
        request, self._pipelined = self._pipelined, None
        if waiting is None:
            self.wait_client.connection.disconnect()
            return
        try:
            woken = self.wait_client.connection.read_response()
        except ResponseError as error:
            raise fetch_call.make_connection_error("to wait", error) from error
        if request is not None:
            self._on_pipelined_reply(request)
            return
        for queue in waiting:
            lease = self.in_flight.leases[queue]
            if not woken or woken[0].decode() in lease.wake_keys:
                lease.fetchable = True

    def _on_pipelined_reply(self, request: FetchRequest) -> None:
        """Read the reply to the fetch call that was pipelined behind a wait."""
        try:
            raw = self.wait_client.connection.read_response()
        except NoScriptError:
            request.lease.fetchable = True
            self._load_script()
            return
        except ResponseError as error:
            raise fetch_call.make_connection_error("to fetch", error) from error
        # If the consumer has another name now, the call was for a lease that is lost or was resumed.
        if request.consumer == request.lease.consumer:
            self._accept_reply(request, fetch_call.parse_reply(raw))

    def on_control_change(self) -> None:
        """Read everything that arrived on the listener's connection, then send the watcher's due requests."""
        self.listener.on_readable()
        now = time.monotonic()
        if now >= self.watcher.due_at:
            self.watcher.on_tick(self.active, now, self._reply_timeout)

    def finish_call(self) -> None:
        """Wait for the reply to the call in progress and deliver its messages. Drop a pipelined fetch.

        Raises redis-py's `TimeoutError` after the socket timeout.
        """
        while self._request is not None:
            self.on_reply()
        if self._pipelined is not None:
            self.wait_client.connection.disconnect()
            lease, self._pipelined, self._waiting = self._pipelined.lease, None, None
            # Resuming the lease returns the messages that the pipelined call may have fetched to the queue.
            resume_lease(self.channel.store, self.in_flight, lease, lease_ms=self.lease_ms)

    def close(self) -> None:
        """Stop fetching. Deliver nothing of the call in progress: its messages return to the queue later."""
        for queue in tuple(self.active):
            self.stop_queue(queue)
        request, self._request = self._request, None
        if request is not None:
            try:
                if not self.fetch_client.connection.can_read(self._reply_timeout):
                    raise RedisTimeoutError("no reply to a fetch")
                reply = fetch_call.parse_reply(self.fetch_client.connection.read_response())
                if reply.lease:
                    fetch_call.update_lease(request, reply)
            except (RedisError, OSError):
                request.lease.put_back_outcomes(request.outcomes)
        self.end_wait()

    def end_wait(self) -> None:
        """End the wait for a wake token, so that it takes no token from the processes that still fetch."""
        if self._waiting is not None and self.wait_client.connection is not None:
            self.wait_client.connection.disconnect()
        self._waiting = self._pipelined = None

    def drop_call(self) -> None:
        """Forget the call in progress and queue its outcomes again. The script carries out each only once."""
        request, self._request = self._request, None
        if request is not None:
            request.lease.put_back_outcomes(request.outcomes)
