"""Celery's own Redis result backend, for applications that use their broker's URL for results too.

For `result_backend = "millpond://…"` (also `millpond+rediss://…`, `millpond+unix://…` and
`millpond+sentinel://…`) Celery finds this function by an entry point in pyproject.toml.
"""

from dataclasses import replace
from typing import Any

from celery import Celery
from celery.backends.redis import RedisBackend, SentinelBackend

from millpond.broker.connection import server_options
from millpond.broker.url import BrokerURL


def result_backend(app: Celery, url: str, **kwargs: Any) -> RedisBackend:
    """Return the backend for a URL, from which Celery has removed `millpond+`. Raises `BadBrokerUrl`."""
    parsed = BrokerURL.parse(url)
    parsed.check_files()
    if parsed.is_sentinel:
        backend = _sentinel_backend(app, parsed, kwargs)
        tls = {} if parsed.tls is None else {"ssl": True}
    else:
        # Celery demands this option of an encrypted URL. The options below replace all that it parses.
        query = "" if parsed.tls is None else "?ssl_cert_reqs=CERT_REQUIRED"
        text = parsed.with_password().replace("unix://", "socket://", 1) + query
        backend, tls = RedisBackend(app=app, url=text, **kwargs), {}
    limit = {} if parsed.max_connections is None else {"max_connections": parsed.max_connections}
    backend.connparams |= {**server_options(parsed), **tls, **parsed.options, **limit}
    return backend


def _sentinel_backend(app: Celery, url: BrokerURL, kwargs: dict[str, Any]) -> SentinelBackend:
    """Return the backend for a sentinel:// URL.

    Celery takes the name of the master and the options of connections to sentinels from the application's
    settings, so they are put there, unless the application has set them.
    """
    nodes = [replace(url, scheme="redis", nodes=(node,)).with_password() for node in url.nodes]
    tls = {"ssl": True, **(url.tls or {})} if url.sentinel_tls else {}
    app.conf.result_backend_transport_options = {
        "master_name": url.master,
        "sentinel_kwargs": {**tls, **url.sentinel_login},
        **(app.conf.result_backend_transport_options or {}),
    }
    text = ";".join(f"sentinel{node.removeprefix('redis')}" for node in nodes)
    return SentinelBackend(app=app, url=text, **kwargs)
