"""Watch for messages of stock producers, which push no wake token, on behalf of every idle process.

Two processes watch each queue: each takes one of the queue's places for a few seconds, and keeps it. They ask
the server whether messages are ready, and it notifies them of the first change to a ready list or to the
delayed messages after that (`CLIENT TRACKING`, on the connection that control changes arrive on, by RESP3).
Then they ask again, and when the next delayed message is due: watch.lua pushes a wake token if messages are
ready, and one idle process takes it. The second process asks a moment after the first, so that one message
wakes one process. While a queue is not empty they ask less often. The others ask now and then whether the
places are taken. If the server, the user's rights or the client's protocol do not allow this, every process
looks for itself (`Fetcher`).
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

#: How long a place is taken; how often a process renews its own, and asks again without a notice; and how
#: often the others look whether the places are taken.
PLACE_SECONDS = 3.0
ROUND_SECONDS = 1.0
LOOK_SECONDS = 3.0

#: How much later than the first the second process asks.
APART_SECONDS = 0.01

#: While messages are ready, how long a process that watches waits before it asks again.
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.25


@dataclass
class WatchedQueue:
    """One queue as a process knows it: its place among the watchers, and how many processes watch it."""

    keys: QueueKeys
    place: int = 0
    taken: int = 0
    replied_at: float = 0.0
    claim_at: float = 0.0
    asked_at: float = 0.0
    ask_at: float = 0.0
    pause: float = 0.0
    #: True while the server will notify of the next change to a ready list.
    is_tracked: bool = False

    @property
    def apart(self) -> float:
        """The delay after the first process with which this process asks."""
        return max(0, self.place - 1) * APART_SECONDS


class Watcher:
    """The watcher of one process. The fetcher reads its replies and notices from the connection."""

    def __init__(self, name: str, store: Store, connection: Callable[[], Any]) -> None:
        self._name = name
        self._store = store
        self._connection = connection
        #: True once the server tracks for this connection.
        self.is_tracking = False
        #: When `on_tick` has something to do although nothing arrives (monotonic seconds).
        self.due_at = 0.0
        self._queues: dict[str, WatchedQueue] = {}
        self._expected: deque[tuple[str, WatchedQueue | None, float]] = deque()
        self._patience = math.inf
        #: Wake tokens that were requested: requests that found messages.
        self.passed_on = 0

    def begin_tracking(self) -> None:
        """Ask the server to track for a connection, if it speaks RESP3."""
        connection = self._connection()
        if getattr(connection, "protocol", 2) not in (3, "3"):
            return
        connection._parser.set_invalidation_push_handler(lambda notice: notice)
        self._send_commands(connection, [(("CLIENT", "TRACKING", "ON", "OPTIN"), "tracking", None)])

    def is_watched(self, queue: str) -> bool:
        """True if some process watches a queue, as far as is known here."""
        watched = self._queues.get(queue)
        return (
            watched is not None
            and watched.taken > 0
            and time.monotonic() - watched.replied_at < LOOK_SECONDS + PLACE_SECONDS
        )

    def on_tick(
        self, queues: Iterable[str], keys_of: Callable[[str], QueueKeys], now: float, patience: float
    ) -> None:
        """Ask for places and for messages if it is time to. Called from `due_at` on.

        Raises redis-py's `TimeoutError` if the server owes a reply for longer than `patience` (seconds).
        """
        self._patience = patience
        if self._is_answer_overdue(now):
            raise RedisTimeoutError(f"no reply to a watching call for {patience} s")
        if self.is_tracking:
            self._send_watch_commands(queues, keys_of, now)
        self._plan_next()

    def _send_watch_commands(
        self, queues: Iterable[str], keys_of: Callable[[str], QueueKeys], now: float
    ) -> None:
        """Send what is due for each queue: the claim of a place, and the script that watches, tracked."""
        commands: list[tuple[tuple[Any, ...], str, WatchedQueue | None]] = []
        for queue in queues:
            watched = self._queues.get(queue) or self._queues.setdefault(queue, WatchedQueue(keys_of(queue)))
            if now >= watched.claim_at:
                places = watched.keys.watcher_seats
                if watched.place or watched.taken < len(places):
                    watched.claim_at = now + ROUND_SECONDS
                    commands.append((self._claim_command(watched, PLACE_SECONDS), "claim", watched))
                else:
                    watched.claim_at = now + LOOK_SECONDS
                    commands.append((("EXISTS", *places), "places", watched))
            if watched.place and now >= watched.ask_at:
                watched.is_tracked, watched.asked_at, watched.ask_at = True, now, now + ROUND_SECONDS
                keys = watched.keys
                commands.append((("CLIENT", "CACHING", "YES"), "caching", None))
                commands.append(
                    (
                        script("watch").command((*keys.ready, keys.delayed), (keys.wake, keys.drain_rate)),
                        "look",
                        watched,
                    )
                )
        if commands:
            self._send_commands(self._connection(), commands)

    def on_idle(self, queues: Iterable[str]) -> None:
        """Ask at once, because this process has found the queues empty and does not look any more."""
        for watched in map(self._queues.get, queues):
            if watched is not None and watched.place and not watched.is_tracked:
                watched.pause = watched.ask_at = 0.0
        self._plan_next()

    def _plan_next(self) -> None:
        """Compute when there is something to ask, or a reply is overdue."""
        times = [math.inf]
        if self._expected:
            times.append(self._expected[0][2] + self._patience)
        if self.is_tracking:
            queues = self._queues.values()
            times += [
                min(watched.claim_at, watched.ask_at) if watched.place else watched.claim_at
                for watched in queues
            ]
        self.due_at = min(times)

    def _is_answer_overdue(self, now: float) -> bool:
        """True if the server owes a reply for too long, and it is not there to be read."""
        late = bool(self._expected) and now - self._expected[0][2] > self._patience
        return late and not self._connection().can_read(timeout=0)

    def leave_place(self, queue: str) -> None:
        """Leave the place at a queue that this process consumes no more."""
        watched = self._queues.pop(queue, None)
        if watched is not None and watched.place and self.is_tracking:
            with suppress(RedisError, OSError):
                self._send_commands(self._connection(), [(self._claim_command(watched, 0), "left", None)])

    # The server's words

    def on_notice(self, keys: Any) -> None:
        """Ask again about the queues whose `keys` changed. With None, any of them may have changed.

        A change to delayed messages alone can wait a little: there are many if tasks are retried.
        """
        changed = None if keys is None else {key.decode() for key in keys}
        for watched in self._queues.values():
            soonest = time.monotonic() + watched.apart
            if watched.is_tracked and (changed is None or not changed.isdisjoint(watched.keys.ready)):
                watched.is_tracked = False
                watched.ask_at = max(soonest, watched.asked_at + watched.pause)
            elif changed is not None and watched.keys.delayed in changed:
                at = max(soonest, watched.asked_at + LONGEST_PAUSE_SECONDS)
                watched.ask_at = min(watched.ask_at, at)
        self._plan_next()

    def on_reply(self, reply: Any) -> None:
        """Read the reply to the oldest request."""
        request_type, watched, _since = self._expected.popleft()
        if isinstance(reply, NoScriptError):
            for name in ("claim_watch", "watch"):
                self._store.client.script_load(script(name).source)
            if watched is not None:
                watched.claim_at = watched.ask_at = 0.0
        elif isinstance(reply, ResponseError):
            self._stop_watching(request_type, reply)
        elif request_type == "tracking":
            self.is_tracking, self.due_at = True, 0.0
            return
        elif request_type == "claim" and watched is not None:
            before, (watched.place, watched.taken) = watched.place, divmod(reply, 10)
            watched.replied_at = time.monotonic()
            if watched.place and not before:
                watched.is_tracked, watched.ask_at = False, 0.0
        elif request_type == "places" and watched is not None:
            watched.taken, watched.replied_at = reply, time.monotonic()
            if reply < len(watched.keys.watcher_seats):
                watched.claim_at = 0.0
        elif request_type == "look" and watched is not None:
            count, due_ms = map(int, reply.split())
            self.passed_on += count > 0
            longer = max(SHORTEST_PAUSE_SECONDS, 2 * watched.pause)
            watched.pause = min(LONGEST_PAUSE_SECONDS, longer) if count else 0.0
            if due_ms >= 0:
                watched.ask_at = min(watched.ask_at, time.monotonic() + due_ms / 1000 + watched.apart)
        self._plan_next()

    def _stop_watching(self, request_type: str, error: ResponseError) -> None:
        """Watch no more: a right is missing, or the server is out of memory. The places expire."""
        if request_type in ("tracking", "caching"):
            self.is_tracking = False
        logger.debug("looking out for messages: %s refused: %s", request_type, error)

    # Asking

    def _claim_command(self, watched: WatchedQueue, seconds: float) -> tuple[Any, ...]:
        """Return the command that claims a place at a queue for some seconds, or leaves it for 0."""
        return script("claim_watch").command(watched.keys.watcher_seats, (self._name, int(seconds * 1000)))

    def _send_commands(
        self, connection: Any, commands: list[tuple[tuple[Any, ...], str, WatchedQueue | None]]
    ) -> None:
        """Send commands in one packet, and note which replies are due."""
        packed = connection.pack_commands([words for words, _, _ in commands])
        # No health check: its reply would be taken for one of these.
        connection.send_packed_command(packed, check_health=False)
        now = time.monotonic()
        self._expected.extend((request_type, watched, now) for _, request_type, watched in commands)
