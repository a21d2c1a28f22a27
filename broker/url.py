"""Parse the broker's URL: the one parser, for every program that connects.

    redis://user:password@host:6379/0            rediss://… the same, encrypted
    unix:///run/redis.sock?db=0                  redis+socket:///… and socket:///… are the same
    sentinel://a:26379;sentinel://b:26379/orders/0    the master `orders`; without a name, `mymaster`
    millpond://… and millpond+rediss://…, millpond+unix://…, millpond+sentinel://…    the same, by which kombu
                                                 finds Millpond's transport; broker/celery/scheme.py

Logins and host names are percent-decoded. Options follow a `?`; `url_options.py` has all of them. An `ssl_…`
option encrypts under every scheme. A refusal never quotes the URL: any part of it may be a password.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from millpond.broker.errors import BadBrokerUrl
from millpond.broker.url_options import make_tls_options, parse_query, parse_whole_number

#: The name of a master if a sentinel:// URL gives none.
DEFAULT_MASTER: Final = "mymaster"

_SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "socket": "unix",
    "redis+socket": "unix",
    "sentinel": "sentinel",
}
#: The scheme by which kombu finds Millpond's transport: it is put before another scheme, or replaces `redis`.
_MILLPOND: Final = "millpond"
_SECOND_URL: Final = re.compile(r";[a-z+]+://", re.IGNORECASE)
_PORTS: Final = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "unix": 0}
_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
#: Options that are passed on to redis-py under their own names.
_PASSED_ON: Final = (
    "socket_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "health_check_interval",
    "client_name",
)


@dataclass(frozen=True)
class BrokerURL:
    """A broker and the options to connect to it. Neither `str()` nor `repr()` shows a password."""

    #: `redis`, `rediss`, `unix` or `sentinel`.
    scheme: str
    #: Host and port of the server, or of every sentinel.
    nodes: tuple[tuple[str, int], ...] = ()
    #: The path of a Unix socket.
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    master: str = DEFAULT_MASTER
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    #: True if the sentinels are spoken to through TLS as well.
    sentinel_tls: bool = False
    #: Options of the encryption, by redis-py's names; None if nothing is encrypted.
    tls: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Options of the connection, by redis-py's names.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: The maximum of connections of a client, and how long a thread waits for a free one; None if not given.
    max_connections: int | None = None
    pool_timeout: float | None = None

    @classmethod
    def parse(cls, text: str) -> "BrokerURL":
        """Parse a URL. Raises `BadBrokerUrl`, which quotes no part of the URL but its scheme."""
        text = text.strip()
        full_scheme = text.partition("://")[0].lower() if "://" in text else ""
        scheme = "redis" if full_scheme == _MILLPOND else full_scheme.removeprefix(f"{_MILLPOND}+")
        try:
            if scheme not in _SCHEMES:
                raise ValueError(
                    "a broker URL begins with redis://, rediss://, unix://, redis+socket:// or sentinel://, "
                    "with or without millpond+ before it, or with millpond://"
                )
            return _parse_parts(scheme, text)
        except (ValueError, UnicodeError) as error:
            is_own = type(error) is ValueError  # the message of another error may quote the URL
            reason = str(error) if is_own else "what is percent-encoded in it is not UTF-8"
        # Raised outside of `except`: a context of this error would be shown, and may quote the URL.
        shown = f"{full_scheme}://…" if scheme in _SCHEMES else "…"
        raise BadBrokerUrl(f"the broker URL {shown} cannot be used: {reason}")

    @property
    def is_sentinel(self) -> bool:
        """True if the URL names sentinels."""
        return self.scheme == "sentinel"

    def check_files(self) -> None:
        """Raise `BadBrokerUrl` if a certificate or key that the URL names does not exist."""
        for name in _FILES:
            path = (self.tls or {}).get(name)
            if path is not None and not Path(path).exists():
                raise BadBrokerUrl(
                    f"the broker URL {self} cannot be used: its option {name} names {path}, "
                    "which is not there"
                )

    @property
    def login(self) -> dict[str, Any]:
        """The login of the server, by redis-py's names."""
        return {"username": self.username, "password": self.password}

    @property
    def sentinel_login(self) -> dict[str, Any]:
        """The login of the sentinels, by redis-py's names. The server's login is not used for them."""
        return {"username": self.sentinel_username, "password": self.sentinel_password}

    @property
    def without_login(self) -> str:
        """The URL without any login or option, as kombu spells it."""
        if self.scheme == "unix":
            return f"redis+socket://{quote(self.path)}" + (f"?virtual_host={self.db}" if self.db else "")
        return self._format_with_login("")

    def __str__(self) -> str:
        """Return the URL with `**` for every password, and without options."""
        return self.with_mask("**")

    def __json__(self) -> str:
        """Return the text by which `celery inspect` shows this transport option."""
        return str(self)

    def with_password(self) -> str:
        """Return the URL with its password, and without options."""
        return self.with_mask(quote(self.password or "", safe=""))

    def with_mask(self, mask: str) -> str:
        """Return the URL with a mask for every password, and without options."""
        login = quote(self.username or "", safe="")
        if self.password is not None:
            login += f":{mask}"
        if self.scheme == "unix":
            at = f"{login}@" if login else ""
            return f"unix://{at}{quote(self.path)}" + (f"?db={self.db}" if self.db else "")
        return self._format_with_login(f"{login}@" if login else "")

    def _format_with_login(self, login: str) -> str:
        """Return the URL of a server or of sentinels without options. `login` is "" or ends in @."""
        nodes = ";".join(f"{self.scheme}://{login}{_format_host(host)}:{port}" for host, port in self.nodes)
        return f"{nodes}/{quote(self.master)}/{self.db}" if self.is_sentinel else f"{nodes}/{self.db}"


def _format_host(host: str) -> str:
    """Return a host name as it is written in a URL, an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else quote(host)


def _parse_parts(scheme: str, text: str) -> BrokerURL:
    """Return the broker that a URL names.

    Raises `ValueError` with the fault and without any part of the URL.
    """
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("it has a space or a control character in it")
    if "#" in text:
        raise ValueError("it has a # in it: write %23 in a password")
    scheme = _SCHEMES[scheme]
    nodes = _split_nodes(scheme, text)
    last = nodes[-1]
    query = parse_query(last.query)
    tls = make_tls_options(scheme, query)
    if scheme != "sentinel":
        _refuse_sentinel_options(query)
    if any(node.path.strip("/") or node.query for node in nodes[:-1]):
        raise ValueError("a path or an option stands before its last sentinel: write them once, at the end")
    common: dict[str, Any] = {
        **_parse_login(nodes, query),
        "tls": tls,
        "options": {name: query[name] for name in _PASSED_ON if name in query},
        "max_connections": query.get("max_connections"),
        "pool_timeout": query.get("timeout"),
    }
    if scheme == "unix":
        common["options"].pop("socket_keepalive", None)  # an option of TCP
        return BrokerURL(scheme, path=_socket_path(last), db=_parse_database(query, ""), **common)
    common["nodes"] = tuple(
        (_percent_decode(node.hostname or "localhost"), _parse_port(scheme, node)) for node in nodes
    )
    if scheme == "sentinel":
        return _parse_sentinel_parts(last.path, query, common)
    db = _parse_database(query, last.path.strip("/"))
    return BrokerURL("redis" if tls is None else "rediss", db=db, **common)


def _parse_sentinel_parts(path: str, query: dict[str, Any], common: dict[str, Any]) -> BrokerURL:
    """Return the broker of a sentinel:// URL. `common` has the fields that every URL has."""
    master, db = _split_master(path)
    return BrokerURL(
        "sentinel",
        master=query.get("master_name") or master or DEFAULT_MASTER,
        db=_parse_database(query, db),
        sentinel_username=query.get("sentinel_username"),
        sentinel_password=query.get("sentinel_password"),
        sentinel_tls=query.get("sentinel_ssl", common["tls"] is not None),
        **common,
    )


def _split_nodes(scheme: str, text: str) -> list[SplitResult]:
    """Return the parts of each URL in a text.

    Only sentinels may be several, and their scheme may be written once or for each. Raises `ValueError`.
    """
    if scheme != "sentinel":
        if _SECOND_URL.search(text):
            raise ValueError(
                "it names several servers: only sentinels may be several (sentinel://a;sentinel://b)"
            )
        return [_split_url(text)]
    parts = text.split(";")
    return [_split_url(part if "://" in part else f"sentinel://{part}") for part in parts]


def _split_url(text: str) -> SplitResult:
    """Return the parts of one URL. Raises `ValueError`, which quotes no part of it."""
    try:
        return urlsplit(text)
    except ValueError:  # its message quotes the login
        raise ValueError("it is not a URL") from None


def _parse_login(nodes: list[SplitResult], query: dict[str, Any]) -> dict[str, str | None]:
    """Return the login of the server: `username` and `password`, None if there is none.

    One of several sentinels may name it, or all of them name the same. Raises `ValueError`.
    """
    logins = {(node.username, node.password) for node in nodes if node.username or node.password}
    if len(logins) > 1:
        raise ValueError("its sentinels name different logins: write the server's once, at the first of them")
    username, password = next(iter(logins), (None, None))
    login = {"username": _percent_decode(username) or None, "password": _percent_decode(password) or None}
    for name in login:
        if query.get(name) and login[name]:
            raise ValueError(f"it has two {name}s: one before the host and one as an option")
    return {name: query.get(name) or value for name, value in login.items()}


def _percent_decode(text: str | None) -> str:
    """Decode a part of the URL, None to "". Raises `UnicodeDecodeError` if it is not UTF-8."""
    return unquote(text or "", errors="strict")


def _parse_port(scheme: str, node: SplitResult) -> int:
    """Return the port of a node, or the scheme's usual port if it names none. Raises `ValueError`."""
    try:
        port = node.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(
            "its port is not a number from 1 to 65535 (in a password write %2F for /, %3F for ?, %23 for #, "
            "%40 for @, %3A for :)"
        )
    return _PORTS[scheme] if port is None else port


def _socket_path(node: SplitResult) -> str:
    """Return the path of a Unix socket. Raises `ValueError`."""
    if node.hostname or not node.path.strip("/"):
        raise ValueError("it names no socket: write an absolute path, as in unix:///run/redis.sock")
    return _percent_decode(node.path)


def _split_master(path: str) -> tuple[str, str]:
    """Return the master and the database of a path such as `/orders/3`, "" for a part that it lacks."""
    words = [_percent_decode(word) for word in path.split("/") if word]
    db = words.pop() if words and words[-1].isdigit() else ""
    return "/".join(words), db


def _parse_database(query: dict[str, Any], in_path: str) -> int:
    """Return the number of the database, from the options or from its text in the path.

    Without either it is 0. Raises `ValueError`.
    """
    numbers = {query[name] for name in ("db", "virtual_host") if name in query}
    if in_path:
        try:
            numbers.add(parse_whole_number(in_path))
        except ValueError:
            raise ValueError("its database is not a whole number, as in redis://host:6379/0") from None
    if len(numbers) > 1:
        raise ValueError("it names two databases: name one")
    return int(next(iter(numbers), 0))


def _refuse_sentinel_options(query: dict[str, Any]) -> None:
    """Raise `ValueError` if the options of a URL without sentinels name one that is for sentinels."""
    for name in ("master_name", "sentinel_username", "sentinel_password", "sentinel_ssl"):
        if name in query:
            raise ValueError(f"its option {name} belongs to a sentinel:// URL")
