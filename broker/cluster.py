"""A server in cluster mode: used if every key lies in one slot, and refused in one line if not.

A prefix that is a hash tag, `{millpond}:`, puts every key into one slot. The node that serves the slot is
used like any server. Only the keys of that slot count.
"""

from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MovedError, ResponseError

from millpond.broker.connection import (
    CLUSTER_ADVICE,
    Store,
    connect,
    names_no_database,
    refusal_reason,
    translate_errors,
)
from millpond.broker.errors import BadBrokerUrl, BrokerError
from millpond.broker.keys import writing_key


def check_cluster_at_start(url: str, *, prefix: str, timeout_seconds: float) -> str | None:
    """Return the line of `check_cluster` for the broker at a URL, or None if it returns none.

    Also return None if the broker is unreachable or refuses a command, because a program starts all the same.
    Raises `BadBrokerUrl`, also for the number of a database that the server does not have.
    """
    store = connect(url, prefix=prefix, timeout_seconds=timeout_seconds)
    try:
        return check_cluster(store)
    except BrokerError:
        return None
    finally:
        store.close()


def check_cluster(store: Store) -> str | None:
    """Return a line for the log: the server is in cluster mode, and which slot is used.

    Return None if the server is not in cluster mode, or refuses INFO. Raises `BadBrokerUrl`, with the setting
    that helps, if it cannot be used. Raises `BrokerAway`.
    """
    with translate_errors("asking the broker whether it is a cluster"):
        try:
            is_cluster = bool(store.client.info("cluster").get("cluster_enabled"))
        except ResponseError as error:
            if names_no_database(error):
                raise BadBrokerUrl(refusal_reason(error)) from None
            return None
    if not is_cluster:
        return None
    if not has_hash_tag(store.prefix):
        raise BadBrokerUrl(CLUSTER_ADVICE + _other_node_note(store, "{millpond}:"))
    other_node = _other_node_note(store, store.prefix)
    slot = key_slot(writing_key(store.prefix).encode())
    if other_node:
        raise BadBrokerUrl(
            "the broker runs in cluster mode, and this node does not serve the slot of the key prefix "
            f"{store.prefix}: name the one that does in the broker URL{other_node}"
        )
    return f"the broker runs in cluster mode: every key lies in slot {slot}, which this node serves"


def has_hash_tag(prefix: str) -> bool:
    """True if all keys with this prefix lie in one slot, because it has a hash tag (`{millpond}:`)."""
    _, brace, rest = prefix.partition("{")
    return bool(brace) and rest.find("}") > 0


def _other_node_note(store: Store, prefix: str) -> str:
    """Return a note in brackets: which other node serves the slot of a prefix, or that no node does.

    Return "" if this node serves the slot, or refuses the question.
    """
    with translate_errors("asking the broker for the node of a slot"):
        try:
            store.client.exists(writing_key(prefix))
        except MovedError as moved:
            return f" (slot {moved.slot_id}: {moved.host}:{moved.port})"
        except ClusterDownError:
            return " (no node serves it now)"
        except ResponseError:
            pass
    return ""
