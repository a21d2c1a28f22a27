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


def parse_whole(value: str) -> int:
    """Return a whole number from 0 on. Raises `ValueError` for another text."""
    if not (value.isascii() and value.isdigit()):
        raise ValueError("is a whole number")
    return int(value)


def _parse_seconds(value: str) -> float:
    """Return a number of seconds above 0. Raises `ValueError` for another text."""
    number = float(value) if value.replace(".", "", 1).isdecimal() and value.isascii() else 0.0
    if not 0 < number < 1e9:
        raise ValueError("is a number of seconds above 0")
    return number


def _parse_bool(value: str) -> bool:
    """Return a truth value. Raises `ValueError` for another text."""
    if value.lower() not in _TRUTHS:
        raise ValueError("is true or false")
    return _TRUTHS[value.lower()]


def _parse_cert_reqs(value: str) -> ssl.VerifyMode:
    """Return how certificates are verified. Raises `ValueError` for another text."""
    if value.lower() not in _CERT_REQS:
        raise ValueError("is CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE (or required, optional, none)")
    return _CERT_REQS[value.lower()]


def _parse_tls_version(value: str) -> ssl.TLSVersion:
    """Return a version of TLS. Raises `ValueError` for another text."""
    name = value.upper().replace(".", "_")
    if name not in ssl.TLSVersion.__members__:
        raise ValueError("is TLSv1.2 or TLSv1.3")
    return ssl.TLSVersion[name]


def _parse_text(value: str) -> str:
    """Return the text itself. Raises `ValueError` if it is empty."""
    if not value:
        raise ValueError("is empty: leave it out")
    return value


#: Options of the connection, as redis-py and Celery name them, and how each is read.
TYPED: Final[Mapping[str, Callable[[str], Any]]] = {
    "db": parse_whole,
    "virtual_host": lambda value: parse_whole(value.strip("/") or "0"),
    "username": _parse_text,
    "password": _parse_text,
    "master_name": _parse_text,
    "sentinel_username": _parse_text,
    "sentinel_password": _parse_text,
    "sentinel_ssl": _parse_bool,
    "ssl": _parse_bool,
    "timeout": _parse_seconds,
    "max_connections": parse_whole,
    "socket_timeout": _parse_seconds,
    "socket_connect_timeout": _parse_seconds,
    "socket_keepalive": _parse_bool,
    "health_check_interval": parse_whole,
    "client_name": _parse_text,
}
#: Options of the encryption.
TLS: Final[Mapping[str, Callable[[str], Any]]] = {
    "ssl_cert_reqs": _parse_cert_reqs,
    "ssl_check_hostname": _parse_bool,
    "ssl_ca_certs": _parse_text,
    "ssl_ca_path": _parse_text,
    "ssl_ca_data": _parse_text,
    "ssl_certfile": _parse_text,
    "ssl_keyfile": _parse_text,
    "ssl_password": _parse_text,
    "ssl_min_version": _parse_tls_version,
    "ssl_ciphers": _parse_text,
}
