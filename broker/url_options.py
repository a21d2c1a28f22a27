"""The options of a broker's URL: their names, those of redis-py and Celery, and how each is read."""

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

_CERT_REQS: Final = {
    f"{before}{name}": value
    for before in ("cert_", "")
    for name, value in (
        ("required", ssl.CERT_REQUIRED),
        ("optional", ssl.CERT_OPTIONAL),
        ("none", ssl.CERT_NONE),
    )
}
_TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def whole(value: str) -> int:
    """Return a whole number. Raises `ValueError`."""
    if not (value.isascii() and value.isdigit()):
        raise ValueError("is a whole number")
    return int(value)


def _seconds(value: str) -> float:
    number = float(value) if value.replace(".", "", 1).isdecimal() and value.isascii() else 0.0
    if not 0 < number < 1e9:
        raise ValueError("is a number of seconds above 0")
    return number


def _truth(value: str) -> bool:
    if value.lower() not in _TRUTHS:
        raise ValueError("is true or false")
    return _TRUTHS[value.lower()]


def _cert_reqs(value: str) -> ssl.VerifyMode:
    if value.lower() not in _CERT_REQS:
        raise ValueError("is CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE (or required, optional, none)")
    return _CERT_REQS[value.lower()]


def _tls_version(value: str) -> ssl.TLSVersion:
    name = value.upper().replace(".", "_")
    if name not in ssl.TLSVersion.__members__:
        raise ValueError("is TLSv1.2 or TLSv1.3")
    return ssl.TLSVersion[name]


def _text(value: str) -> str:
    if not value:
        raise ValueError("is empty: leave it out")
    return value


#: Options of the connection, as redis-py and Celery name them, and how each is read.
TYPED: Final[Mapping[str, Callable[[str], Any]]] = {
    "db": whole,
    "virtual_host": lambda value: whole(value.strip("/") or "0"),
    "username": _text,
    "password": _text,
    "master_name": _text,
    "sentinel_username": _text,
    "sentinel_password": _text,
    "sentinel_ssl": _truth,
    "ssl": _truth,
    "timeout": _seconds,
    "max_connections": whole,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _truth,
    "health_check_interval": whole,
    "client_name": _text,
}
#: Options of the encryption.
TLS: Final[Mapping[str, Callable[[str], Any]]] = {
    "ssl_cert_reqs": _cert_reqs,
    "ssl_check_hostname": _truth,
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_ca_data": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_password": _text,
    "ssl_min_version": _tls_version,
    "ssl_ciphers": _text,
}
