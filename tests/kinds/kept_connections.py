"""Connections that each slot of a worker keeps: a thread, or a prefork child."""

import os
import threading
from typing import Any

_KEPT = threading.local()


def postgres_connection(url: str) -> Any:
    """Return the slot's connection to PostgreSQL."""
    import psycopg

    if getattr(_KEPT, "postgres", None) is None:
        _KEPT.postgres = psycopg.connect(url, autocommit=True)
    return _KEPT.postgres


def redis_client(url: str = "") -> Any:
    """Return the slot's client of a Redis server, of the broker's unless told."""
    import redis

    if getattr(_KEPT, "redis", None) is None:
        _KEPT.redis = redis.Redis.from_url(url or os.environ["MILLPOND_BROKER_URL"])
    return _KEPT.redis
