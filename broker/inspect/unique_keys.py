"""Which tasks have unique keys."""

from collections.abc import Sequence

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import QueueKeys


def read_owners(store: Store, keys: Sequence[tuple[str, str]]) -> list[str | None]:
    """Return the ids of the tasks that have these unique keys, each a queue and a key of it, in one call.

    The id is None for a key that no task has.
    """
    if not keys:
        return []
    names = [QueueKeys(queue, store.prefix).unique_prefix + key for queue, key in keys]
    with translate_errors("reading unique keys"):
        return [None if id is None else id.decode() for id in store.client.mget(names)]
