"""Admission: a producer sleeps in a fair line until a full queue has room for it.

A publish that is refused joins the line in the same script (`publish.lua` with a ticket). Every script that
makes room grants it to the head of the line, with a number of messages. This module waits for the grant and
sends nothing meanwhile.
"""

import random
import time
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millpond.broker.connection import Store, translate_errors
from millpond.broker.errors import BrokerAway
from millpond.broker.keys import QueueKeys
from millpond.broker.message import new_id
from millpond.broker.scripts import script

#: The server's reply may come this much later than the time-out of the blocking pop.
_REPLY_SECONDS = 5.0

#: A waiting producer gives up after the broker was unreachable for this long. It knows of each of its
#: messages whether that was accepted.
AWAY_SECONDS = 30.0


def new_ticket(message_count: int) -> str:
    """Return a unique ticket for a producer that wants to send this number of messages."""
    return f"{message_count}.{new_id()}"


def wait_for_room(store: Store, queue: str, ticket: str, timeout_seconds: float) -> int:
    """Sleep until the ticket is granted room. Return the number of messages granted.

    Returns 0 after `timeout_seconds` without a grant. Also returns 0 after the connection was lost and the
    broker replies again: the ticket may be lost too, so the caller must publish again. Raises `BrokerAway` if
    the broker does not reply again within `AWAY_SECONDS`.
    """
    key = QueueKeys(queue, store.prefix).grant_list(ticket)
    try:
        with translate_errors(f"waiting for room in queue {queue!r}"):
            return _pop_grant(store.blocking_connections, key, max(0.01, timeout_seconds))
    except BrokerAway:
        _wait_for_broker(store)
        return 0


def leave_line(store: Store, queue: str, ticket: str) -> None:
    """Withdraw a ticket from the line, and free the room reserved for it. Raises `BrokerAway`."""
    keys = QueueKeys(queue, store.prefix)
    with translate_errors(f"leaving the line of queue {queue!r}"):
        # The script takes the ticket out of the line, because no message follows these arguments.
        args = ("block", 0, store.prefix, ticket, 0, "", 0)
        script("publish").run(store.client, (*keys.for_scripts, keys.for_scripts[0]), args)


def _pop_grant(connections: Any, key: str, timeout_seconds: float) -> int:
    """Return the grant that is pushed to the list `key` within `timeout_seconds`, or 0 without one.

    The pop is sent on a connection of its own, because redis-py's `blpop` ends with the socket timeout.
    """
    connection = connections.get_connection()
    try:
        connection.send_command("BLPOP", key, timeout_seconds)
        if not connection.can_read(timeout=timeout_seconds + _REPLY_SECONDS):
            raise RedisTimeoutError(f"no reply within {timeout_seconds + _REPLY_SECONDS} s")
        reply = connection.read_response()
    except BaseException:
        connection.disconnect()  # else a late reply would be read as the reply to the next command
        raise
    finally:
        connections.release(connection)
    return int(reply[1]) if reply else 0


def _wait_for_broker(store: Store) -> None:
    """Wait until the broker replies again. Raises `BrokerAway` after `AWAY_SECONDS`."""
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        # Random pauses: many producers must not return to the same server at once.
        time.sleep(random.uniform(0.05, 1.0))
        try:
            store.client.ping()
            return
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            if time.monotonic() > deadline:
                raise BrokerAway(
                    f"waiting for room: the broker has been unreachable for {AWAY_SECONDS:.0f} s ({error}). "
                    "Is it running?"
                ) from error
        except RedisError:
            return  # the server replies, and the next command shows its error
