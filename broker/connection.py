"""Connections to the server: every wait is bounded, and every failure is one kind of error.

The modules that redis-py imports on its first connection are imported here: a child that is forked while
another thread imports a module would wait for that import for ever. It asks for its own version then, which
imports other modules on each Python: so the version is asked for here.
"""

import encodings.idna  # noqa: F401
import importlib.metadata
import secrets  # noqa: F401
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from millpond.broker.errors import BadBrokerUrl, BrokerAway, BrokerError

importlib.metadata.version("redis")

#: The name of a master where a sentinel:// URL gives none.
DEFAULT_MASTER = "mymaster"


@dataclass(frozen=True)
class Store:
    """A client and the prefix of its keys; every function of broker/ takes one.

    The client is typed as Any: redis-py's own types are unions of every protocol's replies, awaited or not.
    """

    client: Any
    prefix: str = ""

    def close(self) -> None:
        """Close the connections of the client."""
        self.client.close()


def connect(url: str, *, prefix: str = "", timeout_seconds: float = 5.0) -> Store:
    """Return a store for a URL: redis://, rediss://, redis+socket:// or sentinel://a;sentinel://b/master/db.

    Nothing is sent yet. Every command is bounded by `timeout_seconds`. A command is sent again only if the
    server cannot have seen it. Raises `BadBrokerUrl`.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "health_check_interval": 25,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 0),
    }
    try:
        if url.startswith("sentinel://"):
            return Store(_by_sentinel(url, options), prefix)
        return Store(Redis.from_url(_as_redis_py(url), **options), prefix)
    except ValueError as error:
        raise BadBrokerUrl(f"the broker URL {redacted(url)} cannot be used: {error}") from None


def _as_redis_py(url: str) -> str:
    """Return the URL as redis-py spells it: sockets as `unix://`, kombu's `virtual_host` option as `db`."""
    if not url.startswith(("redis+socket://", "socket://")):
        return url
    parts = urlsplit(url)
    query = "&".join(
        f"{'db' if name == 'virtual_host' else name}={value}" for name, value in parse_qsl(parts.query)
    )
    return f"unix://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")


def _by_sentinel(url: str, options: dict[str, Any]) -> Any:
    nodes = [urlsplit(part) for part in url.split(";")]
    master, for_kombu = master_of(url)
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        [(n.hostname or "localhost", n.port or 26379) for n in nodes], sentinel_kwargs=options
    )
    login = {"username": nodes[0].username, "password": nodes[0].password}
    return sentinel.master_for(master, db=int(urlsplit(for_kombu).path.strip("/") or 0), **login, **options)


def master_of(url: str) -> tuple[str, str]:
    """Return the master that a sentinel:// URL names, and the URL in kombu's form, with at most a database.

    `sentinel://a:26379;sentinel://b:26379/orders/0` names the master `orders`. Without a name the master is
    Sentinel's default, `mymaster`.
    """
    *others, last = url.split(";")
    parts = urlsplit(last)
    words = [word for word in parts.path.split("/") if word]
    db = words.pop() if words and words[-1].isdigit() else "0"
    nodes = ";".join([*others, f"{parts.scheme}://{parts.netloc}"])
    return "/".join(words) or DEFAULT_MASTER, f"{nodes}/{db}"


def redacted(url: str) -> str:
    """Return a URL without its password."""
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":***@") if parts.password else url


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Raise `BrokerError` for an error of redis-py: one line with the failed action and what to check."""
    try:
        yield
    except AuthenticationError as error:  # redis-py derives it from its connection error
        raise BrokerAway(
            f"{what}: the broker refuses the login of its URL ({error}). Write it as in "
            "redis://user:password@host:6379/0, or redis://:password@…, with %40 for @ and the like"
        ) from None
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise BrokerAway(
            f"{what}: the broker cannot be reached ({error}). Is it running, and is its URL right?"
        ) from None
    except ResponseError as error:
        raise BrokerError(f"{what}: {_refusal(error)}") from None
    except RedisError as error:
        raise BrokerError(f"{what}: the broker answered {error}") from None


def _refusal(error: ResponseError) -> str:
    text = str(error)
    if text.startswith("OOM") or "maxmemory" in text:
        return "the broker is out of memory and refused it. Let workers catch up, or raise its maxmemory"
    if isinstance(error, redis.ReadOnlyError) or text.startswith("READONLY"):
        return "the broker is a read-only replica. Send to the master, or through Sentinel"
    return f"the broker answered {text}"
