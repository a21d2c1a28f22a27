"""The one parser of broker URLs: its forms, its refusals, and no password is ever shown."""

import ssl
from typing import Any

import pytest

from millpond.broker.connection import connect
from millpond.broker.errors import BadBrokerUrl
from millpond.broker.url import BrokerURL
from millpond.tasks.app import celery_app
from millpond.tasks.settings import Settings

REQUIRED = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
UNCHECKED = {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}
A_AND_B = (("a", 26379), ("b", 26380))

UNDERSTOOD: list[tuple[str, dict[str, Any]]] = [
    ("redis://", {"nodes": (("localhost", 6379),), "db": 0}),
    ("redis:///2", {"nodes": (("localhost", 6379),), "db": 2}),
    ("redis://h:1/3", {"scheme": "redis", "nodes": (("h", 1),), "db": 3, "tls": None}),
    ("redis://[::1]:6379/0", {"nodes": (("::1", 6379),)}),
    ("  redis://h\n", {"nodes": (("h", 6379),)}),
    ("redis://h?db=4", {"db": 4}),
    ("redis://h?virtual_host=4", {"db": 4}),
    ("redis://:p%40%2F%3A%3F%23%25@h", {"username": None, "password": "p@/:?#%"}),
    ("redis://j%C3%B6rg:p%C3%A4ss@h", {"username": "jörg", "password": "päss"}),
    ("redis://:jörg@h", {"password": "jörg"}),
    ("redis://h?password=a%26b&username=u", {"username": "u", "password": "a&b"}),
    (
        "redis://h?socket_timeout=2.5&health_check_interval=9",
        {"options": {"socket_timeout": 2.5, "health_check_interval": 9}},
    ),
    ("redis://h?max_connections=7&timeout=3", {"max_connections": 7, "pool_timeout": 3.0}),
    ("rediss://h", {"scheme": "rediss", "tls": REQUIRED}),
    *(
        (f"rediss://h?ssl_cert_reqs={word}", {"tls": REQUIRED})
        for word in ("CERT_REQUIRED", "required", "Required")
    ),
    *(
        (f"rediss://h?ssl_cert_reqs={word}", {"tls": UNCHECKED})
        for word in ("CERT_NONE", "none", "cert_none")
    ),
    ("rediss://h?ssl_ca_certs=/ca.pem", {"tls": {**REQUIRED, "ssl_ca_certs": "/ca.pem"}}),
    ("rediss://h?ssl_check_hostname=false", {"tls": {**REQUIRED, "ssl_check_hostname": False}}),
    (
        "rediss://h?ssl_certfile=/c&ssl_keyfile=/k",
        {"tls": {**REQUIRED, "ssl_certfile": "/c", "ssl_keyfile": "/k"}},
    ),
    *(
        (f"rediss://h?ssl_min_version={text}", {"tls": {**REQUIRED, "ssl_min_version": version}})
        for text, version in (
            ("TLSv1.2", ssl.TLSVersion.TLSv1_2),
            ("tlsv1.3", ssl.TLSVersion.TLSv1_3),
            ("TLSV1.3", ssl.TLSVersion.TLSv1_3),
        )
    ),
    ("millpond://:p%40@h:1/3", {"scheme": "redis", "nodes": (("h", 1),), "db": 3, "password": "p@"}),
    ("millpond+redis://h", {"scheme": "redis"}),
    ("Millpond+rediss://h", {"scheme": "rediss", "tls": REQUIRED}),
    ("millpond+unix:///s?db=2", {"scheme": "unix", "path": "/s", "db": 2}),
    ("millpond+redis+socket:///s", {"scheme": "unix", "path": "/s"}),
    *(
        (
            f"millpond+sentinel://:pw@a;{again}sentinel://b:26380/orders/1",
            {"scheme": "sentinel", "nodes": A_AND_B, "master": "orders", "db": 1, "password": "pw"},
        )
        for again in ("", "millpond+")
    ),
    ("redis://h?ssl=true", {"scheme": "rediss", "tls": REQUIRED}),
    ("redis://h?ssl_cert_reqs=none", {"scheme": "rediss", "tls": UNCHECKED}),
    *(
        (
            f"{scheme}://{login}/run/r%20s.sock?{db}=2",
            {"scheme": "unix", "path": "/run/r s.sock", "db": 2, "password": password},
        )
        for scheme in ("unix", "redis+socket", "socket")
        for db in ("db", "virtual_host")
        for login, password in (("", None), (":p%40@", "p@"))
    ),
    ("unix:///s?password=p", {"path": "/s", "password": "p"}),
    ("sentinel://a", {"nodes": (("a", 26379),), "master": "mymaster", "db": 0}),
    ("sentinel://a/3", {"master": "mymaster", "db": 3}),
    ("sentinel://a/orders", {"master": "orders", "db": 0}),
    ("sentinel://a;sentinel://b:26380/orders/3", {"nodes": A_AND_B, "master": "orders", "db": 3}),
    ("sentinel://a;b:26380/orders/3", {"nodes": A_AND_B, "master": "orders", "db": 3}),
    ("sentinel://:p%3B@a;sentinel://:p%3B@b:26380", {"nodes": A_AND_B, "password": "p;"}),
    ("sentinel://:p@a;sentinel://b:26380", {"nodes": A_AND_B, "password": "p"}),
    (
        "sentinel://:p@a?master_name=orders&sentinel_password=q%40",
        {"master": "orders", "password": "p", "sentinel_password": "q@"},
    ),
    ("sentinel://a?ssl_cert_reqs=none", {"tls": UNCHECKED, "sentinel_tls": True}),
    ("sentinel://a?ssl=true&sentinel_ssl=false", {"tls": REQUIRED, "sentinel_tls": False}),
]

#: Wrong URLs, each with a word of its refusal.
REFUSED = [
    ("", "begins with"),
    ("Geheim", "begins with"),
    ("host:6379", "begins with"),
    ("http://:Geheim@h/0", "begins with"),
    ("amqp://:Geheim@h", "begins with"),
    ("redis://:Geheim/x@h:6379/0", "port"),
    ("redis://:12/Geheim@h/0", "database"),
    ("redis://:1?Geheim@h/0", "option"),
    ("redis://:x#Geheim@h/0", "%23"),
    ("redis://:x Geheim@h/0", "space"),
    ("redis://:Geheim%FF@h/0", "UTF-8"),
    ("redis://:Geheim@h:x/0", "port"),
    ("redis://:Geheim@h:99999/0", "port"),
    ("redis://:Geheim@h:0/0", "port"),
    ("redis://:Geheim@[::1/0", "URL"),
    ("redis://:Geheim@\u2100/0", "URL"),
    ("redis://:Geheim@h/Geheim", "database"),
    ("redis://:Geheim@h/-1", "database"),
    ("redis://:Geheim@h/1?db=2", "two databases"),
    ("redis://:Geheim@h?db=Geheim", "db"),
    ("redis://:Geheim@h?password=Geheim", "two passwords"),
    ("redis://:Geheim@h?passwort=Geheim", "password"),
    ("redis://:Geheim@h?Geheim=1", "option"),
    ("redis://:Geheim@h?socket_timeout=Geheim", "socket_timeout"),
    ("redis://:Geheim@h?socket_timeout=0", "socket_timeout"),
    ("redis://:Geheim@h?socket_timeout=1&socket_timeout=2", "twice"),
    ("redis://:Geheim@h?sentinel_password=x", "sentinel"),
    ("redis://:Geheim@a;redis://:Geheim@b", "several"),
    ("millpond://:Geheim@a;redis://:Geheim@b", "several"),
    ("millpond+amqp://:Geheim@a", "millpond"),
    ("rediss://:Geheim@h?ssl_cert_reqs=Geheim", "CERT_REQUIRED"),
    ("rediss://:Geheim@h?ssl=false", "ssl"),
    *(
        (f"rediss://:Geheim@h?ssl_min_version={text}", "TLSv1.2 or TLSv1.3: older versions are not secure")
        for text in ("TLSv1.1", "TLSv1", "SSLv3", "1.2", "Geheim", "")
    ),
    ("unix://:Geheim@", "socket"),
    ("unix://tmp/Geheim", "socket"),
    ("unix://:Geheim@/s?ssl_cert_reqs=none", "encrypted"),
    ("unix://:Geheim@/s?sentinel_password=x", "sentinel"),
    ("sentinel://:Geheim@a;sentinel://:other@b", "different logins"),
    ("sentinel://:Geheim@a/orders;sentinel://b/orders", "end"),
    ("sentinel://:Gehe;im@a/orders", "port"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), UNDERSTOOD)
def test_a_url_is_understood(text: str, says: dict[str, Any]) -> None:
    """Each way of writing a URL that Celery or redis-py know gives these fields."""
    url = BrokerURL.parse(text)
    assert {name: getattr(url, name) for name in says} == says


@pytest.mark.parametrize(("text", "word"), REFUSED)
def test_a_url_is_refused_alike_and_without_its_password(text: str, word: str) -> None:
    """Parser, client and Celery application raise the same line; nothing of it is in its causes either."""
    lines = set()
    for opened in (BrokerURL.parse, connect, lambda url: celery_app(Settings(broker_url=url or " "))):
        with pytest.raises(BadBrokerUrl) as refusal:
            opened(text)
        assert refusal.value.__cause__ is refusal.value.__context__ is None
        lines.add(str(refusal.value))
    [line] = lines
    assert word in line
    assert "Geheim" not in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "text",
    [
        "redis://u:Geheim@h/0",
        "millpond://u:Geheim@h/0",
        "redis://h/0?password=Geheim",
        "rediss://:Geheim@h/0?ssl_password=Geheim",
        "unix://:Geheim@/s",
        "redis+socket://:Geheim@/s?virtual_host=1",
        "sentinel://:Geheim@a;sentinel://:Geheim@b/orders/1?sentinel_password=Geheim",
    ],
)
def test_nothing_that_shows_a_url_shows_its_password(text: str) -> None:
    """Neither URL, connection or settings, nor the output of `celery inspect conf` and `report`."""
    settings = Settings(broker_url=text)
    app = celery_app(settings)
    with app.connection_for_read() as connection:
        shown = [
            str(BrokerURL.parse(text)),
            repr(BrokerURL.parse(text)),
            BrokerURL.parse(text).without_login,
            connection.as_uri(),
            repr(connection),
            repr(connection.clone()),
            repr(settings),
            repr(app.conf.table(with_defaults=True, censored=True)),
            app.bugreport(),
            repr(connect(text).client),
        ]
        parts = connection.info()
        parts.pop("password")  # as Celery does before it shows them
        shown.append(repr(parts))
    assert [text for text in shown if "Geheim" in text] == []


def test_a_file_that_is_not_there_is_named() -> None:
    """Before a connection is tried, a certificate that is missing is named."""
    with pytest.raises(BadBrokerUrl, match=r"ssl_ca_certs names /nowhere/ca\.pem, which is not there"):
        connect("rediss://:Geheim@h/0?ssl_ca_certs=/nowhere/ca.pem")


def test_connections_of_two_logins_share_no_pool() -> None:
    """Celery's pools of connections are kept by login as well."""
    one, other = (
        celery_app(Settings(broker_url=f"redis://:{password}@h")).connection_for_write()
        for password in ("a", "b")
    )
    assert one.__eqhash__() != other.__eqhash__()


def test_an_application_may_name_another_broker() -> None:
    """`app.connection(url)` connects to its URL, whatever the settings say."""
    with celery_app(Settings(broker_url="redis://:a@h")).connection("redis://:b@other/1") as connection:
        assert connection.as_uri(include_password=True) == "redis://:b@other:6379/1"


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("redis://:b@other:7000/3", ("other", 7000, "3")),
        ("millpond://other", ("other", 6379, "0")),
        ("sentinel://a:7001;sentinel://b:7002/orders/3", ("a", 7001, "3")),
    ],
)
def test_a_connection_names_its_server(text: str, server: tuple[str, int, str]) -> None:
    """Its host, port and database, as `celery inspect stats` shows them; of sentinels, the first."""
    with celery_app(Settings(broker_url=text)).connection_for_read() as connection:
        parts = connection.info()
        assert (parts["hostname"], parts["port"], parts["virtual_host"]) == server
