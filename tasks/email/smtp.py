"""Keep the SMTP connections of one process: a slot that sends takes the one used last, or opens its own.

So there are never more connections than slots, and only as many as are needed. One that was idle is asked
(RSET) before it is used again, one idle for `keep_seconds` is dropped at the next use of any. A server that
refuses our login or certificate is left alone for a while, not asked again by each message of a queue.
"""

import os
import smtplib
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from millpond.tasks.email.conversation import Broken, Delivery, ServerRefuses, connect, hand_over, part
from millpond.tasks.email.message import Envelope
from millpond.tasks.errors import RetryLater
from millpond.tasks.settings import Smtp

#: A connection used within this time is not asked whether it lives: if not, the message goes by a new one.
TRUSTED_SECONDS = 5.0
REFUSED_PAUSE_SECONDS = 30.0


@dataclass
class _Kept:
    client: smtplib.SMTP
    used: float
    clean: bool = True


class Shelf:
    """Hold the idle connections to one server."""

    def __init__(self, settings: Smtp, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._idle: deque[_Kept] = deque()
        self._lock = Lock()
        self._refused: tuple[float, str] = (float("-inf"), "")

    def send(
        self, envelope: Envelope, recipients: Sequence[str], *, before_data: Callable[[], None] = lambda: None
    ) -> Delivery:
        """Send by a kept connection or a new one; raise `RetryLater` or `FinalError` for the whole message.

        A kept connection that turns out to be dead before the message was sent is replaced, once.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._send_by(kept, envelope, recipients, before_data)
            except Broken as broken:
                if broken.data_sent:
                    raise
        return self._send_by(self._open(), envelope, recipients, before_data)

    def close(self) -> None:
        """Part from the server on every idle connection."""
        with self._lock:
            idle, self._idle = self._idle, deque()
        for kept in idle:
            part(kept.client)

    def _send_by(
        self, kept: _Kept, envelope: Envelope, recipients: Sequence[str], before_data: Callable[[], None]
    ) -> Delivery:
        kept.clean = False
        reusable = False
        try:
            delivery = hand_over(kept.client, envelope, recipients, before_data=before_data)
            kept.clean = reusable = True
            return delivery
        except Broken:
            raise
        except Exception:
            reusable = True  # the server said no to this message; RSET makes it forget that
            raise
        finally:
            if reusable:
                self._give_back(kept)
            else:
                kept.client.close()

    def _take(self) -> _Kept | None:
        self._drop_stale()
        while True:
            with self._lock:
                if not self._idle:
                    return None
                kept = self._idle.pop()
            if self._is_alive(kept):
                return kept
            kept.client.close()

    def _is_alive(self, kept: _Kept) -> bool:
        if kept.clean and self._clock() - kept.used < TRUSTED_SECONDS:
            return True
        with suppress(OSError, smtplib.SMTPException):
            return kept.client.rset()[0] == 250
        return False

    def _give_back(self, kept: _Kept) -> None:
        kept.used = self._clock()
        with self._lock:
            self._idle.append(kept)
        self._drop_stale()

    def _drop_stale(self) -> None:
        oldest_allowed = self._clock() - self._settings.keep_seconds
        while True:
            with self._lock:
                if not self._idle or self._idle[0].used > oldest_allowed:
                    return
                kept = self._idle.popleft()
            part(kept.client)

    def _open(self) -> _Kept:
        until, reason = self._refused
        if (wait := until - self._clock()) > 0:
            raise RetryLater(reason, after_seconds=wait)
        try:
            return _Kept(connect(self._settings), self._clock())
        except ServerRefuses as refusal:
            self._refused = (self._clock() + REFUSED_PAUSE_SECONDS, str(refusal))
            raise


_shelves: dict[tuple[int, Smtp], Shelf] = {}


def shelf_for(settings: Smtp) -> Shelf:
    """Return this process's shelf; a child of a fork has its own, and leaves its parent's alone."""
    return _shelves.setdefault((os.getpid(), settings), Shelf(settings))
