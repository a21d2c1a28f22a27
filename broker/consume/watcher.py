"""Watch for messages of stock producers, which push no wake token, on behalf of every idle process.

Two processes watch each queue: each takes one of the queue's seats for a few seconds, and renews it. They
check by watch.lua whether messages are ready or due; if so it pushes a wake token, and one idle process takes
that. After the check the server notifies them of the first change to a ready list or to the delayed messages
(`CLIENT TRACKING`, by RESP3, on the connection of the control listener). Then they check again, and also when
the next delayed message is due. The second process checks a moment after the first, so that one message wakes
one process. While a queue is not empty they check less often. The other processes ask now and then whether
the seats are taken. If the server, the user's rights or the client's protocol do not allow this, no process
watches, and each fetches once a second (`Fetcher`).
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millpond.broker.connection import Store
from millpond.broker.keys import QueueKeys
from millpond.broker.scripts import script

logger = logging.getLogger(__name__)

#: How long a seat is taken; how often a process renews its own, and checks without a notice; and how often
#: the other processes ask whether the seats are taken.
SEAT_SECONDS = 3.0
ROUND_SECONDS = 1.0
RECHECK_SECONDS = 3.0

#: How much later than the first the second process checks.
APART_SECONDS = 0.01

#: While messages are ready, how long a process that watches waits before it checks again.
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.25


@dataclass
class WatchedQueue:
    """What a process knows of one queue. Times are monotonic seconds."""

    keys: QueueKeys
    #: The number of this process's seat, 0 if it has none; the number of seats that are taken, and the time
    #: of that information.
    seat: int = 0
    taken: int = 0
    replied_at: float = 0.0
    #: When to renew the seat, or to ask whether one is free.
    claim_at: float = 0.0
    #: The last check and the next one, and the pause between two of them while messages are ready.
    checked_at: float = 0.0
    check_at: float = 0.0
    pause: float = 0.0
    #: True if this process has found the queue empty since the last check.
    found_empty: bool = False
    #: True while the server will notify this process of the next change to a ready list.
    is_tracked: bool = False

    @property
    def delay(self) -> float:
        """The seconds by which this process checks later than the process in the first seat."""
        return max(0, self.seat - 1) * APART_SECONDS


#: A command, the type of its request, and the queue that it concerns.
_Request = tuple[tuple[Any, ...], str, WatchedQueue | None]


class Watcher:
    """The watcher of one process. The control listener reads the replies and notices for it.

    `connect` returns the connection of the listener, connected.
    """

    def __init__(self, process: str, store: Store, connect: Callable[[], Any]) -> None:
        self._process = process
        self._store = store
        self._connect = connect
        #: The connection on which tracking was asked for.
        self._connection: Any = None
        #: True once the server has confirmed that it tracks keys for this connection.
        self.is_tracking = False
        #: When `on_tick` has something to do although nothing arrives (monotonic seconds).
        self.due_at = 0.0
        self._queues: dict[str, WatchedQueue] = {}
        #: For each reply that is pending, in order: the type of its request, the queue, and when it was sent.
        self._pending: deque[tuple[str, WatchedQueue | None, float]] = deque()
        self._reply_timeout = math.inf

    def begin_tracking(self) -> None:
        """Ask the server to track keys for this connection, if the connection speaks RESP3."""
        self._connection = connection = self._connect()
        if getattr(connection, "protocol", 2) not in (3, "3"):
            return
        connection._parser.set_invalidation_push_handler(lambda notice: notice)
        self._send_requests([(("CLIENT", "TRACKING", "ON", "OPTIN"), "tracking", None)])

    def is_watched(self, queue: str) -> bool:
        """True if some process watches a queue, by the last reply that is recent enough."""
        watched = self._queues.get(queue)
        return (
            watched is not None
            and watched.taken > 0
            and time.monotonic() - watched.replied_at < RECHECK_SECONDS + SEAT_SECONDS
        )

    def on_tick(self, queues: Iterable[str], now: float, reply_timeout: float) -> None:
        """Send the requests about seats and messages that are due. Called from `due_at` on.

        Raises redis-py's `TimeoutError` if a reply has been pending for longer than `reply_timeout`
        (seconds).
        """
        self._reply_timeout = reply_timeout
        if self._is_reply_overdue(now):
            raise RedisTimeoutError(f"no reply to a watching call for {reply_timeout} s")
        if self.is_tracking:
            self._send_due_requests(queues, now)
        self._plan_next()

    def _send_due_requests(self, queues: Iterable[str], now: float) -> None:
        """Send the requests that are due for each queue: about the seats, and the check for messages."""
        requests: list[_Request] = []
        for queue in queues:
            if queue not in self._queues:
                self._queues[queue] = WatchedQueue(QueueKeys(queue, self._store.prefix))
            watched = self._queues[queue]
            if now >= watched.claim_at:
                seats = watched.keys.watcher_seats
                if watched.seat or watched.taken < len(seats):
                    watched.claim_at = now + ROUND_SECONDS
                    requests.append((self._claim_command(watched, SEAT_SECONDS), "claim", watched))
                else:
                    watched.claim_at = now + RECHECK_SECONDS
                    requests.append((("EXISTS", *seats), "seats", watched))
            if watched.seat and now >= watched.check_at:
                watched.is_tracked, watched.found_empty = True, False
                watched.checked_at, watched.check_at = now, now + ROUND_SECONDS
                keys = watched.keys
                check = script("watch").command((*keys.ready, keys.delayed), (keys.wake, keys.drain_rate))
                # The server tracks the keys of the command that follows this one.
                requests.append((("CLIENT", "CACHING", "YES"), "caching", None))
                requests.append((check, "check", watched))
        if requests:
            self._send_requests(requests)

    def on_found_empty(self, queues: Iterable[str]) -> None:
        """Check the queues soon: this process has found them empty, and fetches no more until it is woken."""
        for watched in map(self._queues.get, queues):
            if watched is not None and watched.seat:
                watched.pause, watched.found_empty = 0.0, True
                if not watched.is_tracked:
                    watched.check_at = 0.0
        self._plan_next()

    def _plan_next(self) -> None:
        """Set `due_at` to when the next request is due, or the oldest pending reply is overdue."""
        times = [math.inf]
        if self._pending:
            times.append(self._pending[0][2] + self._reply_timeout)
        if self.is_tracking:
            for watched in self._queues.values():
                times.append(watched.claim_at)
                if watched.seat:
                    times.append(watched.check_at)
        self.due_at = min(times)

    def _is_reply_overdue(self, now: float) -> bool:
        """True if a reply has been pending for too long, and has not arrived unread."""
        late = bool(self._pending) and now - self._pending[0][2] > self._reply_timeout
        return late and not self._connect().can_read(timeout=0)

    def leave_seat(self, queue: str) -> None:
        """Leave the seat of a queue that this process does not consume any more.

        After a lost connection nothing is sent: the seat expires.
        """
        watched = self._queues.pop(queue, None)
        if watched is not None and watched.seat and self.is_tracking and self._connection.is_connected:
            with suppress(RedisError, OSError):
                self._send_requests([(self._claim_command(watched, 0), "leave", None)])

    # Notices and replies of the server

    def on_notice(self, keys: Any) -> None:
        """Plan a check of each queue whose `keys` have changed. With None, any key may have changed.

        After a change to delayed messages alone the check is later, because each retry is such a change.
        """
        changed = None if keys is None else {key.decode() for key in keys}
        for watched in self._queues.values():
            soonest = time.monotonic() + watched.delay
            if watched.is_tracked and (changed is None or not changed.isdisjoint(watched.keys.ready)):
                watched.is_tracked = False
                watched.check_at = max(soonest, watched.checked_at + watched.pause)
            elif changed is not None and watched.keys.delayed in changed:
                later = max(soonest, watched.checked_at + LONGEST_PAUSE_SECONDS)
                watched.check_at = min(watched.check_at, later)
        self._plan_next()

    def on_reply(self, reply: Any) -> None:
        """Handle the reply to the oldest request. An error of the server is a reply too."""
        request_type, watched, _sent_at = self._pending.popleft()
        if isinstance(reply, NoScriptError):
            for name in ("claim_watch", "watch"):
                self._store.client.script_load(script(name).source)
            if watched is not None:
                watched.claim_at = watched.check_at = 0.0
        elif isinstance(reply, ResponseError):
            self._on_refusal(request_type, reply)
        elif request_type == "tracking":
            self.is_tracking, self.due_at = True, 0.0
            return
        elif request_type == "claim" and watched is not None:
            before, (watched.seat, watched.taken) = watched.seat, divmod(reply, 10)
            watched.replied_at = time.monotonic()
            if watched.seat and not before:
                watched.is_tracked, watched.check_at = False, 0.0
        elif request_type == "seats" and watched is not None:
            watched.taken, watched.replied_at = reply, time.monotonic()
            if reply < len(watched.keys.watcher_seats):
                watched.claim_at = 0.0
        elif request_type == "check" and watched is not None:
            count, due_ms = map(int, reply.split())
            longer = max(SHORTEST_PAUSE_SECONDS, 2 * watched.pause)
            is_empty = not count or watched.found_empty  # the woken process may be faster than this reply
            watched.pause = 0.0 if is_empty else min(LONGEST_PAUSE_SECONDS, longer)
            if due_ms >= 0:
                watched.check_at = min(watched.check_at, time.monotonic() + due_ms / 1000 + watched.delay)
        self._plan_next()

    def _on_refusal(self, request_type: str, error: ResponseError) -> None:
        """Stop watching if the server refuses to track, as without the right to. Its seats expire.

        Other requests, which a server without memory refuses, are sent again when they are due.
        """
        if request_type in ("tracking", "caching"):
            self.is_tracking = False
        logger.debug("watching for messages: the server refused %s: %s", request_type, error)

    # Requests

    def _claim_command(self, watched: WatchedQueue, seconds: float) -> tuple[Any, ...]:
        """Return the command that takes or renews a seat of a queue for some seconds. 0 leaves the seat."""
        return script("claim_watch").command(watched.keys.watcher_seats, (self._process, int(seconds * 1000)))

    def _send_requests(self, requests: list[_Request]) -> None:
        """Send requests in one packet, and record that their replies are pending."""
        connection = self._connect()
        packed = connection.pack_commands([command for command, _, _ in requests])
        # Without a health check, whose reply would be taken for the reply to one of these.
        connection.send_packed_command(packed, check_health=False)
        now = time.monotonic()
        self._pending.extend((request_type, watched, now) for _, request_type, watched in requests)
