"""Connections to the server. Every wait is bounded, and every failure is a `BrokerError`.

The modules that redis-py imports on its first connection are imported here, because a child that is forked
while another thread imports a module would wait for that import for ever. On that connection redis-py also
reads its own version. This imports further modules, which differ by Python version, so the version is read
here.
"""

import encodings.idna  # noqa: F401
import importlib.metadata
import secrets  # noqa: F401
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from queue import Empty, LifoQueue
from typing import Any

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.connection import (
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    MaxConnectionsError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from millpond.broker.errors import BrokerAway, BrokerError, NoConnectionFree
from millpond.broker.url import BrokerURL

importlib.metadata.version("redis")

#: The advice for a server in cluster mode.
CLUSTER_ADVICE = (
    "the broker runs in cluster mode, where all keys must lie in one slot: set MILLPOND_KEY_PREFIX to a hash "
    "tag, as in {millpond}:, and name the node of its slot in the broker URL"
)

#: The maximum of connections of one client. Further threads wait for a free one.
MAX_CONNECTIONS = 100

#: Options of the connections to the master that connections to its sentinels take over.
_SENTINEL_OPTIONS = ("socket_timeout", "socket_connect_timeout", "health_check_interval")

#: The share of the socket timeout for which a send waits for replicas.
COPY_SHARE = 0.8

#: The maximum of threads of one client that wait until there is room in a queue, each on a connection.
MAX_BLOCKING_CONNECTIONS = 10_000


@dataclass(frozen=True)
class Store:
    """A client and the prefix of its keys. Functions of broker/ take one to make a round trip.

    The client is typed as Any: redis-py's own types are unions of every protocol's replies, awaited or not.
    """

    client: Any
    prefix: str = ""
    #: Replicas that must have a message before a send returns, and how long it waits for them.
    copies: int = 0
    copy_seconds: float = 4.0

    @cached_property
    def blocking_connections(self) -> Any:
        """A pool of connections for commands that block, apart from the connections of the client."""
        pool = self.client.connection_pool
        return ConnectionPool(pool.connection_class, MAX_BLOCKING_CONNECTIONS, **pool.connection_kwargs)

    @contextmanager
    def pipeline(self, action: str, *, atomic: bool = False) -> Iterator[Any]:
        """Yield a pipeline, whose `execute()` sends its commands together. If `atomic`, as one transaction.

        Its errors are translated: `action` is what has failed (`translate_errors`).
        """
        with translate_errors(action), self.client.pipeline(transaction=atomic) as pipe:
            yield pipe

    def with_own_connections(self) -> "Store":
        """Return a store for the same server and prefix, with connections of its own."""
        pool = self.client.connection_pool
        new_pool = ConnectionPool(pool.connection_class, **pool.connection_kwargs)
        client = type(self.client)(connection_pool=new_pool)
        return Store(client, self.prefix, self.copies, self.copy_seconds)

    def close(self) -> None:
        """Close all connections."""
        if "blocking_connections" in self.__dict__:
            self.blocking_connections.disconnect()
        self.client.close()


def connect(
    url: str | BrokerURL, *, prefix: str = "", timeout_seconds: float = 5.0, copies: int = 0
) -> Store:
    """Make a store for a broker. Nothing is sent yet.

    Every command is bounded by `timeout_seconds`, and so is the wait for a free connection. The options of
    the URL override this. A command is sent again only if the server cannot have received it. `copies` is the
    number of replicas that must have a message before a send returns. Raises `BadBrokerUrl`.
    """
    url = url if isinstance(url, BrokerURL) else BrokerURL.parse(url)
    url.check_files()
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "health_check_interval": 25,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 0),
        "max_connections": url.max_connections or MAX_CONNECTIONS,
        "timeout": url.pool_timeout or timeout_seconds,
        "queue_class": _FreeConnections,
        **url.options,
    }
    if url.is_sentinel:
        pool: ConnectionPool = sentinel_pool(url, _BlockingSentinelPool, **options, **url.login)
    else:
        pool = BlockingConnectionPool(**options, **server_options(url))  # type: ignore[no-untyped-call]
    return Store(Redis.from_pool(pool), prefix, copies, COPY_SHARE * options["socket_timeout"])


def server_options(url: BrokerURL) -> dict[str, Any]:
    """Return redis-py's options for a connection to the server of a URL.

    The address of a master is not among them: its sentinels name it.
    """
    shared = {"db": url.db, **url.login, **(url.tls or {})}
    if url.is_sentinel:
        return shared
    if url.scheme == "unix":
        return {"connection_class": UnixDomainSocketConnection, "path": url.path, **shared}
    [(host, port)] = url.nodes
    connection_class = Connection if url.tls is None else SSLConnection
    return {"connection_class": connection_class, "host": host, "port": port, **shared}


def sentinel_pool(
    url: BrokerURL,
    pool_class: type[SentinelConnectionPool],
    *,
    master: str | None = None,
    to_sentinels: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Return a pool of connections to the master that the sentinels of a URL name.

    `options` apply to the connections to the master. Connections to the sentinels share their timeouts, and
    `to_sentinels` overrides these.
    """
    # An unreachable sentinel is not tried again: the next one is asked.
    shared = {"retry": Retry(NoBackoff(), 0)}
    shared |= {name: value for name, value in options.items() if name in _SENTINEL_OPTIONS}
    tls = {"ssl": True, **(url.tls or {})} if url.sentinel_tls else {}
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        url.nodes, sentinel_kwargs={**shared, **tls, **url.sentinel_login, **(to_sentinels or {})}
    )
    if url.tls is not None:
        options |= url.tls if "connection_class" in options else {"ssl": True, **url.tls}
    return pool_class(master or url.master, sentinel, **{"db": url.db, **options})


class _FreeConnections(LifoQueue[Any]):
    """The free connections of a pool."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return a free connection, or None if redis-py may open one more.

        Raises redis-py's `MaxConnectionsError` if none became free within `timeout` seconds.
        """
        try:
            return super().get(block, timeout)
        except Empty:
            raise MaxConnectionsError(f"all {self.maxsize} were in use for {timeout} s") from None


class _BlockingSentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """redis-py's pool of connections to a master, in which threads wait for a free connection."""

    def release(self, connection: Any) -> None:
        """Return a connection to the pool, or drop it if its server is no longer the master."""
        if not self.owns_connection(connection):  # type: ignore[no-untyped-call]
            with suppress(ValueError):
                self._connections.remove(connection)
        super().release(connection)  # type: ignore[no-untyped-call]


@contextmanager
def translate_errors(action: str) -> Iterator[None]:
    """Raise `BrokerError` for an error of redis-py: one line with the failed `action` and the remedy.

    The error is `BrokerAway` if the server is unreachable, refuses the login, is a replica or has too few of
    them. It is `NoConnectionFree` if all connections of the client are in use.
    """
    try:
        yield
    except AuthenticationError as error:  # a subclass of RedisConnectionError, so it comes before that
        raise BrokerAway(
            f"{action}: the broker refuses the login of its URL ({error}). Write it as in "
            "redis://user:password@host:6379/0, or redis://:password@…, with %40 for @ and the like"
        ) from None
    except MaxConnectionsError as error:  # another subclass, raised before anything is sent
        raise NoConnectionFree(
            f"{action}: no connection of this client is free ({error}): use fewer threads, or raise their "
            "number: ?max_connections=N at the end of the broker URL"
        ) from None
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        text = str(error).partition(" : <")[0]  # without the options that redis-py's Sentinel appends
        raise BrokerAway(
            f"{action}: the broker cannot be reached ({text}). Is it running, and is its URL right?"
        ) from None
    except ReadOnlyError:
        raise BrokerAway(
            f"{action}: the broker is a read-only replica. Send to the master, or through Sentinel"
        ) from None
    except ResponseError as error:
        if "NOREPLICAS" in str(error):
            raise BrokerAway(
                f"{action}: the broker refuses writes, because it has fewer replicas than its setting "
                "`min-replicas-to-write`. Are they running, and can they reach it?"
            ) from None
        raise BrokerError(f"{action}: {refusal_reason(error)}") from None
    except RedisError as error:
        raise BrokerError(f"{action}: the broker answered {error}") from None


def names_no_database(error: ResponseError) -> bool:
    """True if the server refused a new connection because it has no database of the URL's number."""
    return "DB index" in str(error)


def refusal_reason(error: ResponseError) -> str:
    """Return why the server refused a command, with the remedy if one is known."""
    text = str(error)
    if names_no_database(error):
        return (
            f"the broker has no database of the number at the end of its URL ({text}): servers have 0 to 15, "
            "or as many as their setting `databases` says"
        )
    if text.startswith("OOM") or "maxmemory" in text:
        return "the broker is out of memory and refused it. Let workers catch up, or raise its maxmemory"
    if isinstance(error, AskError | ClusterCrossSlotError):
        node = f" (slot {error.slot_id}: {error.host}:{error.port})" if isinstance(error, AskError) else ""
        return CLUSTER_ADVICE + node
    return f"the broker answered {text}"
