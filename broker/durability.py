"""Ask a server whether it may lose what it has taken: evict it, or forget it when it restarts."""

from typing import Any

from redis.exceptions import RedisError, ResponseError

from millpond.broker.connection import Store, clear_errors

NO_EVICTION = "noeviction"


def risks(store: Store) -> list[str]:
    """Return one line for each way in which the server may lose messages, and what to set.

    Reads INFO, and CONFIG where that is allowed: managed servers deny it. Raises `BrokerAway`.
    """
    with clear_errors("asking the broker how it keeps messages"):
        try:
            memory, persistence = store.client.info("memory"), store.client.info("persistence")
        except ResponseError:
            return []
        save = _save(store.client)
    found = []
    policy = memory.get("maxmemory_policy", NO_EVICTION)
    if memory.get("maxmemory") and policy != NO_EVICTION:
        found.append(
            f"the broker may evict messages when its memory is short (maxmemory-policy {policy}): "
            f"set maxmemory-policy {NO_EVICTION}"
        )
    if not persistence.get("aof_enabled") and not save:
        found.append(
            "the broker keeps nothing on disk, so a restart of it loses every message: set appendonly yes"
            if save == ""
            else "the broker writes no append-only file, so a crash of it loses what is newer than its last "
            "snapshot: set appendonly yes"
        )
    return found


def _save(client: Any) -> str | None:
    """Return when the server makes snapshots, "" for never, None where it does not say."""
    try:
        return str(client.config_get("save").get("save", ""))
    except RedisError:
        return None
