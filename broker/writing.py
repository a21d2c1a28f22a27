"""Ask a server whether it takes writes: one whose disk or memory is full answers, and refuses them."""

from redis.exceptions import NoPermissionError, ResponseError

from millpond.broker.connection import Store, clear_errors
from millpond.broker.keys import writing_key


def refusal(store: Store) -> str | None:
    """Return why the server refuses writes, in its words; None: it takes them, or we may not ask.

    Asks for a write that changes nothing: of no bytes, to a key that is not there. Raises `BrokerAway`.
    """
    with clear_errors("asking whether the broker takes writes"):
        try:
            store.client.setrange(writing_key(store.prefix), 0, b"")
        except NoPermissionError:
            return None
        except ResponseError as error:
            return str(error)
    return None
