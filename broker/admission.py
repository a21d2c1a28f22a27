"""Wait for room in a queue: a producer sleeps until it is its turn, and asks the server nothing meanwhile.

Standing in the line is part of a publish that was refused (`publish.lua` with a ticket); whoever makes room
calls the head of the line and says how many messages it may send. Only the call is waited for here.
"""

import random
import time

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millpond.broker.connection import Store, translate_errors
from millpond.broker.errors import BrokerAway
from millpond.broker.identity import new_id
from millpond.broker.keys import QueueKeys, batch_key
from millpond.broker.scripts import script

#: How long the server may owe the end of a wait.
_PATIENCE_SECONDS = 5.0

#: How long a producer that waits puts up with a broker that is away: nothing it sent is in doubt.
AWAY_SECONDS = 30.0


def new_ticket(wants: int) -> str:
    """Return a ticket that nobody has had, for a producer that has so many messages to send."""
    return f"{wants}.{new_id()}"


def wait_for_room(store: Store, queue: str, ticket: str, seconds: float) -> int:
    """Sleep until this ticket is called; return how many messages there is room for.

    0 when nobody called for `seconds`, or when the connection was lost and is back: then the ticket may be
    lost too, and is to be asked about. Raises `BrokerAway` when the broker does not come back.
    """
    key = QueueKeys(queue, store.prefix).grant(ticket)
    try:
        with translate_errors(f"waiting for room in queue {queue!r}"):
            return _blpop(store, key, max(0.01, seconds))
    except BrokerAway:
        _until_back(store)
        return 0


def leave_line(store: Store, queue: str, ticket: str) -> None:
    """Give up a place in the line, and the room that was kept for it."""
    keys = QueueKeys(queue, store.prefix)
    with translate_errors(f"leaving the line of queue {queue!r}"):
        words = ("block", 0, store.prefix, ticket, 0, "", 0)
        script("publish").run(store.client, (*keys.all, batch_key(None)), words)


def _blpop(store: Store, key: str, seconds: float) -> int:
    """Block longer than the client's socket timeout, on a connection that nobody else uses meanwhile."""
    pool = store.client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_command("BLPOP", key, seconds)
        if not connection.can_read(timeout=seconds + _PATIENCE_SECONDS):
            raise RedisTimeoutError(f"no answer within {seconds + _PATIENCE_SECONDS} s")
        answer = connection.read_response()
    except BaseException:
        connection.disconnect()  # an answer that comes late must be nobody's
        raise
    finally:
        pool.release(connection)
    return int(answer[1]) if answer else 0


def _until_back(store: Store) -> None:
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        # Many producers wait for the same server: they must not come back to it all at once.
        time.sleep(random.uniform(0.05, 1.0))
        try:
            store.client.ping()
            return
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            if time.monotonic() > deadline:
                raise BrokerAway(
                    f"waiting for room: the broker is away for {AWAY_SECONDS:.0f} s ({error}). Is it running?"
                ) from error
        except RedisError:
            return  # it answers; what it has to say, it says to the next question
