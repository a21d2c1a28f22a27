"""Ask a server whether it is there."""

from redis.exceptions import RedisError

from millpond.broker.connection import connect


def answers(url: str, *, timeout_seconds: float = 1.0) -> bool:
    """Say whether the server at `url` takes our login and answers PING; False while it loads its data."""
    store = connect(url, timeout_seconds=timeout_seconds)
    try:
        return bool(store.client.ping())
    except (RedisError, OSError):
        return False
    finally:
        store.close()
