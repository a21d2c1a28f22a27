"""The fetch loop of one channel: one connection calls settle_and_fetch.lua, another waits for a wake token.

Neither blocks the event loop. When a call finds nothing, the waiting connection sleeps on the wake lists: it
takes only a token, so no message is ever in the hands of a blocking pop. Stock producers push no token: a few
processes watch for their messages and push it (watcher.py). If no process watches, each process looks again
after a second; otherwise after ten, in case a token was lost. If possible, the next fetch is sent right
behind the wait: the server carries it out as soon as the wait is over, and a round trip is saved.
"""

import math
import time
from time import sleep
from typing import Any

from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millpond.broker.consume import fetch_call
from millpond.broker.consume.behind_wait import pipelined_request
from millpond.broker.consume.control_listener import ControlListener
from millpond.broker.consume.in_flight import GATHERED_SECONDS, InFlightMessages
from millpond.broker.consume.lease_resumption import resume
from millpond.broker.consume.prefetch import AGAIN_SECONDS
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.keys import QueueKeys
from millpond.broker.scripts import script

#: Seconds between looks at a queue without a wake token, if no process watches for messages and if one does.
LOOK_SECONDS = 1.0
WATCHED_LOOK_SECONDS = 10.0

#: How long the server may owe a reply if no socket timeout is set.
PATIENCE_SECONDS = 5.0

#: How long the loop of an idle process leaves the interpreter to the thread of a new task.
START_SECONDS = 0.0002

FETCH, WAIT = "FETCH", "WAIT"


class Fetcher:
    """The calls of one channel. The poller calls `on_tick` before each poll, `on_…` when a reply is there."""

    def __init__(self, channel: Any, in_flight: InFlightMessages, *, lease_ms: int) -> None:
        self.channel = channel
        self.in_flight = in_flight
        self.lease_ms = lease_ms
        self.active: set[str] = set()
        self.fetch_client = channel.new_client()
        self.wait_client = channel.new_client()
        self.listener = ControlListener(channel, in_flight)
        self.watcher = self.listener.watcher
        self._patience: float = channel.socket_timeout or PATIENCE_SECONDS
        self._request: FetchRequest | None = None
        self._request_since = 0.0
        self._waiting: list[str] | None = None
        self._behind: FetchRequest | None = None
        self._waiting_until = 0.0
        self._was_full = False
        #: True if messages of a queue wait for a permit of its in-flight limit.
        self._is_limited = False
        self._taken_up: set[str] = set()
        # A call of a lost connection gets no reply. Its outcomes are sent again on this connection.
        if in_flight.fetcher is not None:
            in_flight.fetcher.abandon()
        in_flight.settle_finished()
        in_flight.fetcher = self

    def start(self, keys: QueueKeys) -> None:
        """Begin to consume a queue. After a lost connection, resume the lease if it has not expired."""
        lease = self.in_flight.lease(keys)
        if keys.queue not in self._taken_up:
            resume(self.channel.store, self.in_flight, lease, lease_ms=self.lease_ms)
            self._taken_up.add(keys.queue)
        lease.fetchable = True
        self.active.add(keys.queue)
        self.watcher.due_at = 0.0

    def stop(self, queue: str) -> None:
        """Fetch nothing more from a queue. Its messages in flight are settled as before."""
        self.active.discard(queue)
        self.watcher.leave_place(queue)

    # Sending

    def on_tick(self) -> None:
        """Send the next call if it is time for one. Otherwise make sure that this process will be woken.

        Raises redis-py's `TimeoutError` if the server owes a reply for too long, which no socket reports.
        """
        now = time.monotonic()
        self._check_patience(now)
        listens = self.in_flight.at_once != 1  # else nothing drives it that could
        if listens and (self.in_flight.drained or not self.listener.is_subscribed):
            self.listener.on_tick(now)
        if now >= self.watcher.due_at:
            self.watcher.on_tick(self.active, self._keys_of, now, self._patience)
        self.in_flight.release_overdue(now)
        self._look_after_being_full()
        if self._request is None:
            # The call behind a wait has all the credit: credit is given once.
            fetching = self.active if self._behind is None else set()
            request = self.in_flight.next_request(fetching, now)
            if request is not None:
                self._send_fetch(request)
        if self._request is None and self._waiting is None and self._needs_wake_token():
            self._send_wait()

    def _look_after_being_full(self) -> None:
        """Fetch once a slot is free after a time without a wait: others may have taken the wake tokens."""
        if self._waiting is not None or self._request is not None:
            return
        full = self.in_flight.room == 0
        if self._was_full and not full:
            for queue in self.active:
                self.in_flight.leases[queue].fetchable = True
        self._was_full = full

    def _needs_wake_token(self) -> bool:
        """True if there is room and some queue was empty, so the next call fetches from the others."""
        fetchable = [self.in_flight.leases[queue].fetchable for queue in self.active]
        return not all(fetchable) and self.in_flight.room > 0

    def _check_patience(self, now: float) -> None:
        """Raise redis-py's `TimeoutError` if the reply to a fetch or a wait is overdue."""
        patience = self._patience
        if self._request is not None and now - self._request_since > patience:
            self._drop_call()
            raise RedisTimeoutError(f"no reply to a fetch for {patience} s")
        if self._waiting is not None and now > self._waiting_until + patience:
            self._waiting = self._behind = None
            raise RedisTimeoutError(f"no reply to a wait for {patience} s")

    def wake(self) -> None:
        """Wake the event loop in time for the next call."""
        cycle = getattr(self.channel.connection, "cycle", None)  # a closed channel has no connection
        if cycle is not None:
            cycle.wake_up_in(0.0 if self._is_limited else GATHERED_SECONDS)

    def seconds_to_next(self) -> float | None:
        """Return the seconds until `on_tick` has something to do unless something arrives, or None."""
        now = time.monotonic()
        times = [self.watcher.due_at]
        if self.in_flight.has_waiting:
            times.append(max(self.in_flight.ahead.look_at, now + AGAIN_SECONDS))  # the next tick looks, too
        if self._request is not None:
            soonest = min(times)
            return None if soonest == math.inf else max(0.0, soonest - now)
        if self.in_flight.drained:
            times.append(self.listener.due_at)
        for lease in self.in_flight.leases.values():
            if lease.look_at and lease.keys.queue in self.active:
                times.append(lease.look_at)
            if lease.outcomes:
                times.append(lease.outcomes_since + (0.0 if lease.is_limited else GATHERED_SECONDS))
        soonest = min(times)
        return None if soonest == math.inf else max(0.0, soonest - now)

    def _send_fetch(self, request: FetchRequest) -> None:
        """Send a call and remember it. If it could not be written, its outcomes are queued again."""
        self._request = request
        self.in_flight.fetch_calls += 1
        try:
            connection = self.channel.connection.cycle.connect_watched(self.channel, self.fetch_client, FETCH)
            connection.send_command(*fetch_call.fetch_command(request, lease_ms=self.lease_ms))
            self._request_since = time.monotonic()
        except BaseException:
            self._drop_call()
            raise

    def _send_wait(self) -> None:
        """Send the blocking pop of a wake token, with a fetch call pipelined behind it if that is allowed."""
        queues, now = sorted(self.active), time.monotonic()
        connection = self.channel.connection.cycle.connect_watched(self.channel, self.wait_client, WAIT)
        watched = all(map(self.watcher.is_watched, queues))
        seconds = WATCHED_LOOK_SECONDS if watched else LOOK_SECONDS
        leases = [self.in_flight.leases[queue] for queue in queues]
        words = ("BLPOP", *(key for lease in leases for key in lease.wake_keys), seconds)
        request = pipelined_request(self.in_flight, self.active, now + seconds)
        if request is None:
            connection.send_command(*words)
        else:
            then = fetch_call.fetch_command(request, lease_ms=self.lease_ms)
            connection.send_packed_command(connection.pack_commands([words, then]))
        self._waiting, self._behind, self._waiting_until = queues, request, now + seconds
        if not self._is_limited:  # messages that wait for a permit are not watched for
            self.watcher.on_idle(self.active)

    def _keys_of(self, queue: str) -> QueueKeys:
        return self.in_flight.leases[queue].keys

    # Receiving

    def on_reply(self) -> None:
        """Read the reply of a call and deliver the fetched messages."""
        request = self._request
        if request is None:
            self.fetch_client.connection.disconnect()  # the server closed an idle connection
            return
        try:
            raw = self.fetch_client.connection.read_response()
        except NoScriptError:
            self._request = None
            request.lease.put_back(request.outcomes)
            self._load_script()
            return
        except ResponseError as error:
            self._drop_call()
            raise fetch_call.server_error("to fetch", error) from error
        except BaseException:
            self._drop_call()
            raise
        self._request = None
        self._accept_reply(request, fetch_call.read_reply(raw))

    def _load_script(self) -> None:
        """Send the source of the script to a server that has lost it."""
        try:
            self.channel.store.client.script_load(script("settle_and_fetch").source)
        except ResponseError as error:
            raise fetch_call.server_error("a script", error) from error

    def _accept_reply(self, request: FetchRequest, reply: fetch_call.Reply) -> None:
        """Accept the reply of a call: deliver its messages, or resume the lease if it had expired."""
        if not reply.lease:
            lease = request.lease
            lease.late += reply.late
            # It expired, or the server has forgotten it and all that came since. This is logged and counted.
            resume(self.channel.store, self.in_flight, lease, lease_ms=self.lease_ms)
            if request.consumer == lease.consumer:
                self.in_flight.lose_lease(lease)
            return
        fetch_call.note_queue_state(request, reply)
        self._is_limited = any(lease.is_limited for lease in self.in_flight.leases.values())
        if reply.epoch != self.in_flight.control.epoch:  # it is lower if the broker has forgotten some
            self.listener.read_changes()
        was_idle = not self.in_flight.count
        receive = self.in_flight.receive if request.lease.keys.queue in self.active else None
        buries = not self.in_flight.of_channel
        fetch_call.accept_messages(request.lease, reply, receive or self.channel.deliver, buries=buries)
        if was_idle and not request.lease.fetchable and self.in_flight.count:
            # Nothing else is there to be fetched or settled. A thread that wakes while this one holds the
            # interpreter goes to sleep once more.
            sleep(START_SECONDS)

    def on_wait(self) -> None:
        """Read the reply of a wait: a token, or the end of a second."""
        waiting, self._waiting = self._waiting, None
        request, self._behind = self._behind, None
        if waiting is None:
            self.wait_client.connection.disconnect()
            return
        try:
            woken = self.wait_client.connection.read_response()
        except ResponseError as error:
            raise fetch_call.server_error("to wait", error) from error
        if request is not None:
            self._on_request_behind(request)
            return
        for queue in waiting:
            lease = self.in_flight.leases[queue]
            if not woken or woken[0].decode() in lease.wake_keys:
                lease.fetchable = True

    def _on_request_behind(self, request: FetchRequest) -> None:
        """Read the reply that follows the end of a wait."""
        try:
            raw = self.wait_client.connection.read_response()
        except NoScriptError:
            request.lease.fetchable = True
            self._load_script()
            return
        except ResponseError as error:
            raise fetch_call.server_error("to fetch", error) from error
        # Under another name by now, this process has lost the lease that the call was for.
        if request.consumer == request.lease.consumer:
            self._accept_reply(request, fetch_call.read_reply(raw))

    def on_control_change(self) -> None:
        """Read that something was cancelled, a pool drained, or a ready list changed."""
        self.listener.on_readable()
        now = time.monotonic()
        if now >= self.watcher.due_at:
            self.watcher.on_tick(self.active, self._keys_of, now, self._patience)

    def finish(self) -> None:
        """Wait for the reply of the call that is under way, at most as long as the socket lets it."""
        while self._request is not None:
            self.on_reply()
        if self._behind is not None:
            self.wait_client.connection.disconnect()
            lease, self._behind, self._waiting = self._behind.lease, None, None
            # Messages that the call behind the wait fetched meanwhile return to the queue.
            resume(self.channel.store, self.in_flight, lease, lease_ms=self.lease_ms)

    def close(self) -> None:
        """Skip the reply of the call that is under way: its messages return to the queue with the lease."""
        for queue in tuple(self.active):
            self.stop(queue)
        request, self._request = self._request, None
        if request is not None:
            try:
                if not self.fetch_client.connection.can_read(self._patience):
                    raise RedisTimeoutError("no reply to a fetch")
                reply = fetch_call.read_reply(self.fetch_client.connection.read_response())
                if reply.lease:
                    fetch_call.note_queue_state(request, reply)
            except (RedisError, OSError):
                request.lease.put_back(request.outcomes)
        self.end_wait()

    def end_wait(self) -> None:
        """End the wait for a wake token: a token that it takes now would wake nobody."""
        if self._waiting is not None and self.wait_client.connection is not None:
            self.wait_client.connection.disconnect()
        self._waiting = self._behind = None

    def abandon(self) -> None:
        """Forget the call that is under way. Its outcomes are sent again, and carried out once."""
        self._drop_call()

    def _drop_call(self) -> None:
        """Forget the call that is under way, and put its outcomes back."""
        request, self._request = self._request, None
        if request is not None:
            request.lease.put_back(request.outcomes)
