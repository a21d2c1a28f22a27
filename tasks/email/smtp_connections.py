"""The SMTP connections of one process. A slot that sends takes the idle one used last, or opens a new one.

There are never more connections than slots. A connection that was idle is checked by RSET before its next
use. One that was idle for `keep_seconds` is closed at the next use of any. After a server refused the login
or its certificate was refused, no message tries again for a while.
"""

import os
import smtplib
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from millpond.tasks.email.message import Envelope
from millpond.tasks.email.smtp_session import (
    ConnectionBroken,
    ServerRefused,
    SmtpResult,
    connect,
    disconnect,
    submit_message,
)
from millpond.tasks.errors import RetryLater
from millpond.tasks.settings import Smtp

#: A connection used within this time is not checked. If it is dead, the message is sent over a new one.
TRUSTED_SECONDS = 5.0
REFUSED_PAUSE_SECONDS = 30.0


@dataclass
class _Connection:
    """A session with the server: when it was last used, and whether a message is half sent on it."""

    client: smtplib.SMTP
    used: float
    clean: bool = True


class SmtpConnections:
    """The idle connections to one server. Threads may share them."""

    def __init__(self, settings: Smtp, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._idle: deque[_Connection] = deque()
        self._lock = Lock()
        self._refused: tuple[float, str] = (float("-inf"), "")

    def send(
        self, envelope: Envelope, recipients: Sequence[str], *, before_data: Callable[[], None] = lambda: None
    ) -> SmtpResult:
        """Send over an idle connection or a new one. Raises `RetryLater` or `FinalError`.

        An idle connection that breaks before the message was sent is replaced, once.
        """
        connection = self._take_idle()
        if connection is not None:
            try:
                return self._send_over(connection, envelope, recipients, before_data)
            except ConnectionBroken as broken:
                if broken.data_sent:
                    raise
        return self._send_over(self._open_connection(), envelope, recipients, before_data)

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            idle, self._idle = self._idle, deque()
        for connection in idle:
            disconnect(connection.client)

    def _send_over(
        self,
        connection: _Connection,
        envelope: Envelope,
        recipients: Sequence[str],
        before_data: Callable[[], None],
    ) -> SmtpResult:
        """Submit a message over a connection. Close the connection unless its session can go on."""
        connection.clean = False
        reusable = False
        try:
            delivery = submit_message(connection.client, envelope, recipients, before_data=before_data)
            connection.clean = reusable = True
            return delivery
        except ConnectionBroken:
            raise
        except Exception:
            reusable = True  # the server refused this message; RSET resets the session
            raise
        finally:
            if reusable:
                self._keep_idle(connection)
            else:
                connection.client.close()

    def _take_idle(self) -> _Connection | None:
        """Return an idle connection whose server still replies. Return None if there is none."""
        self._close_stale()
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if self._is_alive(connection):
                return connection
            connection.client.close()

    def _is_alive(self, connection: _Connection) -> bool:
        """True if a connection was used just now, or if its server replies."""
        if connection.clean and self._clock() - connection.used < TRUSTED_SECONDS:
            return True
        with suppress(OSError, smtplib.SMTPException):
            return connection.client.rset()[0] == 250
        return False

    def _keep_idle(self, connection: _Connection) -> None:
        """Keep a connection for the next mail, and close those that were idle too long."""
        connection.used = self._clock()
        with self._lock:
            self._idle.append(connection)
        self._close_stale()

    def _close_stale(self) -> None:
        """Close the idle connections that were unused for longer than the settings keep them."""
        oldest_allowed = self._clock() - self._settings.keep_seconds
        while True:
            with self._lock:
                if not self._idle or self._idle[0].used > oldest_allowed:
                    return
                connection = self._idle.popleft()
            disconnect(connection.client)

    def _open_connection(self) -> _Connection:
        """Open a connection. Raises the last refusal again for some seconds after the server refused one."""
        until, reason = self._refused
        if (wait := until - self._clock()) > 0:
            raise RetryLater(reason, after_seconds=wait)
        try:
            return _Connection(connect(self._settings), self._clock())
        except ServerRefused as refusal:
            self._refused = (self._clock() + REFUSED_PAUSE_SECONDS, str(refusal))
            raise


_connections: dict[tuple[int, Smtp], SmtpConnections] = {}


def connections_for(settings: Smtp) -> SmtpConnections:
    """Return this process's connections. A forked child has its own, and does not use its parent's."""
    return _connections.setdefault((os.getpid(), settings), SmtpConnections(settings))
