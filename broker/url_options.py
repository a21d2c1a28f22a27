"""Parse the options of a broker's URL, which follow its `?`. They have the names of redis-py and Celery.

A refusal is a `ValueError` that ends the sentence "its option NAME …", and never quotes a value.
"""

import ssl
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import parse_qsl

_CERT_REQS: Final = {
    f"{before}{name}": value
    for before in ("cert_", "")
    for name, value in (
        ("required", ssl.CERT_REQUIRED),
        ("optional", ssl.CERT_OPTIONAL),
        ("none", ssl.CERT_NONE),
    )
}
_TLS_VERSIONS: Final = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}
_TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parse_query(text: str) -> dict[str, Any]:
    """Return the options of a URL, each in its type.

    Raises `ValueError`, which names the option, and `UnicodeDecodeError` if the text is not UTF-8.
    """
    options: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, errors="strict"):
        parse = _PARSERS.get(name)
        if parse is None:
            if close := get_close_matches(name, _PARSERS, 1):
                raise ValueError(f"it has an unknown option {name}: did you mean {close[0]}?")
            # The name is not shown: it may be the rest of a password with an unescaped & or ?.
            raise ValueError(f"it has an unknown option; the options are {', '.join(_PARSERS)}")
        if name in options:
            raise ValueError(f"its option {name} is given twice")
        try:
            options[name] = parse(value)
        except ValueError as error:
            raise ValueError(f"its option {name} {error}") from None
    return options


def make_tls_options(scheme: str, query: dict[str, Any]) -> dict[str, Any] | None:
    """Return redis-py's options of TLS from the options of a URL, or None without TLS.

    Raises `ValueError` for options that contradict each other.
    """
    options = {name: query[name] for name in _TLS_PARSERS if name in query}
    is_encrypted = query.get("ssl", bool(options) or scheme == "rediss")
    if not is_encrypted:
        if options or scheme == "rediss":
            raise ValueError("its option ssl=false says the opposite of the rest: leave it out")
        return None
    if scheme == "unix":
        raise ValueError("a Unix socket is not encrypted: leave out its ssl options")
    verification = options.get("ssl_cert_reqs", ssl.CERT_REQUIRED)
    if verification == ssl.CERT_NONE and options.get("ssl_check_hostname"):
        raise ValueError("ssl_check_hostname needs ssl_cert_reqs=CERT_REQUIRED")
    options.setdefault("ssl_cert_reqs", verification)
    options.setdefault("ssl_check_hostname", verification != ssl.CERT_NONE)
    return options


def parse_whole_number(value: str) -> int:
    """Return a whole number from 0 on. Raises `ValueError` for another text."""
    if not (value.isascii() and value.isdigit()):
        raise ValueError("must be a whole number from 0 on")
    return int(value)


def _parse_seconds(value: str) -> float:
    """Return a number of seconds above 0. Raises `ValueError` for another text."""
    number = float(value) if value.replace(".", "", 1).isdecimal() and value.isascii() else 0.0
    if not 0 < number < 1e9:
        raise ValueError("must be a number of seconds above 0")
    return number


def _parse_bool(value: str) -> bool:
    """Return a truth value. Raises `ValueError` for another text."""
    if value.lower() not in _TRUTHS:
        raise ValueError("must be true or false")
    return _TRUTHS[value.lower()]


def _parse_cert_reqs(value: str) -> ssl.VerifyMode:
    """Return how certificates are verified. Raises `ValueError` for another text."""
    if value.lower() not in _CERT_REQS:
        raise ValueError("must be CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE (or required, optional, none)")
    return _CERT_REQS[value.lower()]


def _parse_tls_version(value: str) -> ssl.TLSVersion:
    """Return a version of TLS. Raises `ValueError` for an older version and for another text."""
    if value.lower() not in _TLS_VERSIONS:
        raise ValueError(
            "must be TLSv1.2 or TLSv1.3: older versions are not secure, so enable one of these on the server"
        )
    return _TLS_VERSIONS[value.lower()]


def _parse_text(value: str) -> str:
    """Return the text itself. Raises `ValueError` if it is empty."""
    if not value:
        raise ValueError("is empty: leave it out")
    return value


#: Option of the encryption -> its parser.
_TLS_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
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
#: Option -> its parser.
_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "db": parse_whole_number,
    "virtual_host": lambda value: parse_whole_number(value.strip("/") or "0"),
    "username": _parse_text,
    "password": _parse_text,
    "master_name": _parse_text,
    "sentinel_username": _parse_text,
    "sentinel_password": _parse_text,
    "sentinel_ssl": _parse_bool,
    "ssl": _parse_bool,
    "timeout": _parse_seconds,
    "max_connections": parse_whole_number,
    "socket_timeout": _parse_seconds,
    "socket_connect_timeout": _parse_seconds,
    "socket_keepalive": _parse_bool,
    "health_check_interval": parse_whole_number,
    "client_name": _parse_text,
    **_TLS_PARSERS,
}
