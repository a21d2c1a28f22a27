"""The server itself: its time, its version, and whether it replies, accepts writes and keeps messages."""

import time
from functools import partial
from typing import Any

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from millpond.broker.connection import Store, connect, translate_errors
from millpond.broker.keys import writing_key

NO_EVICTION = "noeviction"

#: How long `is_reachable` waits for a connection, and for a reply.
REACHABLE_SECONDS = 1.0

#: If the system has it, the clock that also counts while the machine is suspended.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

#: Returns the seconds of a clock of this host that nobody can set. It also counts while the process is
#: stopped.
elapsed_seconds = partial(time.clock_gettime, _CLOCK)


def server_time_ms(store: Store) -> int:
    """Return the server's time (Redis TIME) in ms since the epoch. Raises `BrokerAway`."""
    with translate_errors("reading the broker's clock"):
        seconds, micros = store.client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def is_reachable(url: str) -> bool:
    """True if the server at `url` accepts the login and PING within `REACHABLE_SECONDS`.

    While it loads its data it refuses PING.
    """
    store = connect(url, timeout_seconds=REACHABLE_SECONDS)
    try:
        return bool(store.client.ping())
    except (RedisError, OSError):
        return False
    finally:
        store.close()


def read_server_version(store: Store) -> tuple[str, str] | None:
    """Return the server's name and its version, or None if INFO is denied. Raises `BrokerAway`."""
    with translate_errors("asking the broker for its version"):
        try:
            info = store.client.info("server")
        except ResponseError:
            return None
    if "valkey_version" in info:
        return "Valkey", str(info["valkey_version"])
    return str(info.get("server_name", "redis")).capitalize(), str(info.get("redis_version", "0"))


def find_write_refusal(store: Store) -> str | None:
    """Return the server's reason for refusing writes, or None if it accepts them or denies the test.

    A server whose disk or memory is full still replies to PING. The test writes no bytes to a key that does
    not exist, so it changes nothing. Raises `BrokerAway`.
    """
    with translate_errors("asking whether the broker takes writes"):
        try:
            store.client.setrange(writing_key(store.prefix), 0, b"")
        except NoPermissionError:
            return None
        except ResponseError as error:
            return str(error)
    return None


def find_durability_risks(store: Store) -> list[str] | None:
    """Return a line for each setting with which the server may lose messages or refuse every send.

    Each has a fault, a colon and its remedy. None if the server denies INFO: nothing is known then. CONFIG,
    which managed servers deny, sharpens one line. Raises `BrokerAway`.
    """
    with translate_errors("asking the broker how it keeps messages"):
        try:
            memory, persistence = store.client.info("memory"), store.client.info("persistence")
            replicas = int(store.client.info("replication").get("connected_slaves", 0))
        except ResponseError:
            return None
        save = _snapshot_schedule(store.client)
    risks = []
    policy = memory.get("maxmemory_policy", NO_EVICTION)
    if memory.get("maxmemory") and policy != NO_EVICTION:
        risks.append(
            f"the broker may evict messages when its memory is short (maxmemory-policy {policy}): "
            f"set maxmemory-policy {NO_EVICTION}"
        )
    if not persistence.get("aof_enabled"):
        risks.append(
            "the broker keeps nothing on disk, so a restart of it loses every message: set appendonly yes"
            if save == ""
            else "the broker writes no append-only file, so a crash of it loses every message since its "
            "last snapshot: set appendonly yes"
        )
    if replicas and not store.copies:
        risks.append(
            "the broker has replicas, and a send does not wait until one has its message, so a fail-over may "
            "lose the last ones: set MILLPOND_SEND_COPIES=1"
        )
    if store.copies > replicas:
        risks.append(
            f"a send waits for {store.copies} replicas, and the broker has {replicas}, so every send fails: "
            f"start more, or set MILLPOND_SEND_COPIES={replicas}"
        )
    return risks


def _snapshot_schedule(client: Any) -> str | None:
    """Return the server's `save` setting, "" if it makes no snapshots, None if CONFIG is denied."""
    try:
        return str(client.config_get("save").get("save", ""))
    except RedisError:
        return None
