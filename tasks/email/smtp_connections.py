"""The SMTP connections of one process. A mail is sent over the idle one that was used last, or a new one.

There are never more connections than slots. A connection that was idle for some seconds is checked with RSET
before its next use; if it does not reply in time, it is closed, and so are all that were idle for longer. One
that was idle for `keep_seconds` is closed when another is used. After a login or a
certificate was refused, no connection is opened for a while.
"""

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
from millpond.tasks.errors import RetryLater, TaskError
from millpond.tasks.settings import Smtp

#: A connection that was used within this time is not checked. If it is broken, a new one is opened.
TRUSTED_SECONDS = 5.0
#: How long a reply to that check may take, and no longer than `timeout_seconds`.
CHECK_SECONDS = 3.0
#: How long no connection is opened after the server or the certificate was refused.
REFUSED_PAUSE_SECONDS = 30.0


@dataclass
class _Connection:
    """A session with the mail server. `is_clean` is False after a message that was refused or broke off.

    `used_at` is the time of its last use, by the clock of `SmtpConnections`.
    """

    client: smtplib.SMTP
    used_at: float
    is_clean: bool = True


class SmtpConnections:
    """Sends messages to one mail server, and keeps its idle connections. Threads may share this."""

    def __init__(self, settings: Smtp, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._idle: deque[_Connection] = deque()
        self._lock = Lock()
        #: The time until which no connection is opened, and the reason.
        self._refused_until: tuple[float, str] = (float("-inf"), "")

    def send(
        self, envelope: Envelope, recipients: Sequence[str], *, before_data: Callable[[], None] = lambda: None
    ) -> SmtpResult:
        """Send a message over an idle connection or a new one, and return the server's replies.

        If an idle connection breaks before the message was sent, it is sent over a new one. `before_data` is
        called before the message itself is sent. Raises `RetryLater` or `FinalError`.
        """
        connection = self._take_idle()
        if connection is not None:
            try:
                return self._send_over(connection, envelope, recipients, before_data)
            except ConnectionBroken as error:
                if error.data_sent:
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
        """Submit a message over a connection. Then keep the connection, or close it if it cannot be used."""
        connection.is_clean = is_usable = False
        try:
            result = submit_message(connection.client, envelope, recipients, before_data=before_data)
            connection.is_clean = is_usable = True
            return result
        except TaskError as error:
            # The message was refused; RSET clears the session before the next one. After any other error, as
            # that of a time limit, the late reply would be read as the reply to the next command.
            is_usable = not isinstance(error, ConnectionBroken)
            raise
        finally:
            if is_usable:
                self._keep_idle(connection)
            else:
                connection.client.close()

    def _take_idle(self) -> _Connection | None:
        """Take the idle connection that was used last. Return None if there is none, or if it is broken.

        After a broken one, the others are closed: they were idle for longer, and each could take as long.
        """
        self._close_stale()
        with self._lock:
            if not self._idle:
                return None
            connection = self._idle.pop()
        if self._is_alive(connection):
            return connection
        connection.client.close()
        self.close()
        return None

    def _is_alive(self, connection: _Connection) -> bool:
        """True if a connection was used a moment ago, or if its server replies to RSET."""
        if connection.is_clean and self._clock() - connection.used_at < TRUSTED_SECONDS:
            return True
        socket = connection.client.sock
        if socket is None:
            return False
        with suppress(OSError, smtplib.SMTPException):
            socket.settimeout(min(CHECK_SECONDS, self._settings.timeout_seconds))
            is_alive = connection.client.rset()[0] == 250
            socket.settimeout(self._settings.timeout_seconds)
            return is_alive
        return False

    def _keep_idle(self, connection: _Connection) -> None:
        """Keep a connection for the next mail, and close those that were idle for too long."""
        connection.used_at = self._clock()
        with self._lock:
            self._idle.append(connection)
        self._close_stale()

    def _close_stale(self) -> None:
        """Close the connections that were idle for `keep_seconds`."""
        oldest_allowed = self._clock() - self._settings.keep_seconds
        while True:
            with self._lock:
                if not self._idle or self._idle[0].used_at > oldest_allowed:
                    return
                connection = self._idle.popleft()
            disconnect(connection.client)

    def _open_connection(self) -> _Connection:
        """Open a connection. Raises `RetryLater` for `REFUSED_PAUSE_SECONDS` after one was refused."""
        until, reason = self._refused_until
        if (wait := until - self._clock()) > 0:
            raise RetryLater(reason, after_seconds=wait)
        try:
            return _Connection(connect(self._settings), self._clock())
        except ServerRefused as error:
            self._refused_until = (self._clock() + REFUSED_PAUSE_SECONDS, str(error))
            raise
