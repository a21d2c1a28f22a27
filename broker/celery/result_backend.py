"""Celery's own Redis result backend, for applications that use their broker's URL for results too.

For `result_backend = "millpond://…"` (also `millpond+rediss://…`, `millpond+unix://…` and
`millpond+sentinel://…`) Celery finds this function by an entry point in pyproject.toml.
"""

from typing import Any
from urllib.parse import quote

from celery import Celery
from celery.backends.redis import RedisBackend, SentinelBackend

from millpond.broker.url import BrokerURL


def result_backend(app: Celery, url: str, **kwargs: Any) -> RedisBackend:
    """Return the backend for a URL, from which Celery has removed `millpond+`. Raises `BadBrokerUrl`.

    Celery takes the name of a sentinels' master from the application's settings, so it is put there.
    """
    parsed = BrokerURL.parse(url)
    login = f":{quote(parsed.password, safe='')}@" if parsed.password else ""
    if parsed.is_sentinel:
        nodes = ";".join(f"sentinel://{login}{host}:{port}/{parsed.db}" for host, port in parsed.nodes)
        options = {"master_name": parsed.master, **(app.conf.result_backend_transport_options or {})}
        app.conf.result_backend_transport_options = options
        return SentinelBackend(app=app, url=nodes, **kwargs)
    if parsed.scheme == "unix":
        return RedisBackend(app=app, url=f"socket://{login}{parsed.path}?virtual_host={parsed.db}", **kwargs)
    return RedisBackend(app=app, url=url.replace("millpond://", "redis://", 1), **kwargs)
