"""A result backend at the broker's URL connects by all of that URL: login, encryption, options."""

import ssl
from typing import Any

import pytest
from celery import Celery

TLS = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
LOGIN = {"username": "ann", "password": "p/w"}


def backend_of(url: str) -> Any:
    """Return the result backend of an application."""
    return Celery(broker="memory://", backend=url, set_as_current=False).backend


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("millpond://ann:p%2Fw@h:1/3", {"host": "h", "port": 1, "db": 3, **LOGIN}),
        ("millpond://[::1]/3", {"host": "::1", "port": 6379, "db": 3}),
        ("millpond://h?socket_timeout=2&max_connections=7", {"socket_timeout": 2.0, "max_connections": 7}),
        ("millpond+unix://ann:p%2Fw@/run/r%20s.sock?db=3", {"path": "/run/r s.sock", "db": 3, **LOGIN}),
        ("millpond+rediss://h", {"host": "h", **TLS}),
        ("millpond://h?ssl=true", {"host": "h", **TLS}),
        (
            "millpond+rediss://h?ssl_min_version=TLSv1.2",
            {"host": "h", **TLS, "ssl_min_version": ssl.TLSVersion.TLSv1_2},
        ),
        ("millpond+sentinel://ann:p%2Fw@a;sentinel://b/orders/1", {"db": 1, **LOGIN}),
    ],
)
def test_each_part_of_the_url_is_used(url: str, options: dict[str, Any]) -> None:
    """The connections of the backend have these options."""
    pool = backend_of(url).client.connection_pool
    known = {**pool.connection_kwargs, "max_connections": pool.max_connections}
    assert {name: known.get(name) for name in options} == options


def test_sentinels_are_asked_as_the_url_says() -> None:
    """With their own login, through TLS, at addresses of either family; so is the master."""
    url = "millpond+sentinel://:pw@a;sentinel://[::1]:7/orders?ssl_cert_reqs=required&sentinel_password=other"
    pool = backend_of(url).client.connection_pool
    sentinels = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    assert [(each.connection_kwargs["host"], each.connection_kwargs["port"]) for each in sentinels] == [
        ("a", 26379),
        ("::1", 7),
    ]
    assert {each.connection_kwargs["password"] for each in sentinels} == {"other"}
    assert {each.connection_class.__name__ for each in sentinels} == {"SSLConnection"}
    assert (pool.service_name, pool.connection_class.__name__) == ("orders", "SentinelManagedSSLConnection")
