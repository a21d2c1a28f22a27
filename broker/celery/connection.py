"""Connect kombu as a `BrokerURL` says: broker/url.py alone parses it, and its password stays in it.

Connection       of Millpond's application: has its URL in the transport option `url`
TransportByUrl   puts the URL of any other application there
Connecting       opens a channel's connections by it
"""

from typing import Any

from kombu import Connection as KombuConnection
from kombu.transport import redis as stock
from redis import UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.sentinel import SentinelConnectionPool

from millpond.broker.connection import sentinel_pool, server_options
from millpond.broker.errors import BrokerAway
from millpond.broker.keys import writing_key
from millpond.broker.url import BrokerURL


class Connection(KombuConnection):
    """kombu's connection to a `BrokerURL`, the transport option `url`, or to another that is named instead.

    kombu would take a transport of its own for `redis+socket://`.
    """

    def __init__(
        self, hostname: Any = None, userid: Any = None, password: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        url = (kwargs.get("transport_options") or {}).get("url")
        if isinstance(url, BrokerURL):
            if hostname and "://" in hostname and hostname != url.without_login:
                url = BrokerURL.parse(hostname)
                kwargs["transport_options"] = {**kwargs["transport_options"], "url": url}
            hostname = "localhost"
        super().__init__(hostname, userid, password, *args, **kwargs)
        if isinstance(url, BrokerURL):
            _show_url(self, url)


def url_of(connection: Any) -> BrokerURL | None:
    """Return the URL of a connection, or None if the application gave kombu a host by its name."""
    url = (connection.transport_options or {}).get("url")
    return url if isinstance(url, BrokerURL) else None


def hide_url_of(connection: Any) -> None:
    """Parse the URL of a connection that kombu left whole, and hide it when kombu shows a connection.

    kombu's own way of trying one sentinel after the other would change to a transport of its own.
    """
    if url_of(connection) is None and "://" in (connection.hostname or ""):
        url = BrokerURL.parse(";".join(connection.alt or [connection.hostname]))
        connection.transport_options = {**(connection.transport_options or {}), "url": url}
        _show_url(connection, url)
    if url_of(connection) is not None:
        connection.alt, connection.cycle, connection.uri_prefix = [], None, None


def _show_url(connection: Any, url: BrokerURL) -> None:
    """Name the server to kombu, for `inspect stats` and for its pools, which two logins must not share."""
    host, port = url.nodes[0] if url.nodes else ("localhost", None)
    connection.hostname, connection.port, connection.virtual_host = host, port, str(url.db)
    connection.userid, connection.password = url.username, url.password


class TransportByUrl(stock.Transport):
    """A transport that has its URL parsed here: kombu leaves it whole for one that can."""

    can_parse_url = True
    connection_errors = (*stock.Transport.connection_errors, ReadOnlyError, BrokerAway)

    def __init__(self, client: Any, *args: Any, **kwargs: Any) -> None:
        hide_url_of(client)
        super().__init__(client, *args, **kwargs)

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the URL of the connection, by default without its password."""
        url = url_of(self.client)
        if url is None:
            return f"redis://{uri or 'localhost'}"
        return url.with_password() if include_password else url.with_mask(mask)


class Connecting(stock.Channel):
    """A channel that connects as its connection's `BrokerURL` says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._require_writable()

    def _require_writable(self) -> None:
        """Raise a connection error while the server is a read-only replica: the worker waits for a master."""
        try:
            self.store.client.setrange(writing_key(self.global_keyprefix), 0, b"")
        except ReadOnlyError:
            raise RedisConnectionError("the broker is a read-only replica") from None
        except ResponseError:
            pass  # not allowed, or refused for another reason, which the first write will show

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Return how redis-py connects to the server. Raises `BadBrokerUrl`."""
        connection = self.connection.client
        url = url_of(connection)
        if url is None:
            return dict(super()._connparams(asynchronous))
        url.check_files()
        server = {"db": url.db} if url.is_sentinel else server_options(url)
        options = {
            "max_connections": self.max_connections,
            "socket_timeout": self.socket_timeout,
            "socket_connect_timeout": self.socket_connect_timeout,
            "health_check_interval": self.health_check_interval,
            "retry_on_timeout": self.retry_on_timeout,
            "client_name": self.client_name,
            **url.login,
            **(url.tls or {}),
            **(connection.ssl if isinstance(connection.ssl, dict) else {}),
            **server,
            **url.options,
        }
        if url.scheme == "unix":
            connection_class = UnixDomainSocketConnection
        else:
            options |= {
                "socket_keepalive": url.options.get("socket_keepalive", self.socket_keepalive),
                "socket_keepalive_options": self.socket_keepalive_options,
            }
            encrypted = url.tls is not None or bool(connection.ssl)
            connection_class = self.connection_class_ssl if encrypted else self.connection_class
        self._process_credential_provider(connection.credential_provider, options)
        return {
            **options,
            "connection_class": self._with_poller(connection_class) if asynchronous else connection_class,
        }

    def _subscribe(self) -> None:
        """Subscribe by name if a topic is no pattern: an ACL lets a pattern pass only to the letter."""
        topics = [topic for q in self.active_fanout_queues for topic in self._get_subscribe_topics(q)]
        client = self.subclient
        if topics and client.connection._sock is None:
            client.connection.connect()
        if topics:
            self._in_listen = client.connection
        names, patterns = _split_topics(topics)
        if names:
            client.subscribe(*names)
        if patterns:
            client.psubscribe(*patterns)

    def _receive(self) -> bool:
        """Read the messages of a subscription. Without one, a read would wait for ever."""
        connection = self.subclient.connection
        if connection is None or connection._sock is None or not connection.can_read(timeout=0):
            return False
        return bool(super()._receive())

    def _unsubscribe_from(self, queue: str) -> None:
        """Undo the subscriptions of `_subscribe`."""
        names, patterns = _split_topics(self._get_subscribe_topics(queue))
        client = self.subclient
        if client.connection and client.connection._sock:
            if names:
                client.unsubscribe(*names)
            if patterns:
                client.punsubscribe(*patterns)

    def _with_poller(self, connection_class: Any) -> Any:
        """Return a class of connections that leave the poller when they are closed."""
        channel = self

        class Watched(connection_class):
            def disconnect(self, *args: Any, **kwargs: Any) -> None:
                super().disconnect(*args, **kwargs)
                if channel._registered:
                    channel._on_connection_disconnect(self)

        return Watched


def _split_topics(topics: list[str]) -> tuple[list[str], list[str]]:
    """Return the topics that are names, and those that are patterns."""
    names = [topic for topic in topics if not set(topic) & set("*?[")]
    return names, [topic for topic in topics if topic not in names]


class ConnectingToMaster(Connecting, stock.SentinelChannel):
    """A channel that connects to the master that the sentinels of its `BrokerURL` name."""

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """Return the pool of connections to the master that the sentinels name."""
        url = url_of(self.connection.client)
        if url is None:
            return super()._sentinel_managed_pool(asynchronous)
        to_sentinels = getattr(self, "sentinel_kwargs", None) or {}
        master = getattr(self, "master_name", None) or url.master
        pool = sentinel_pool(
            url,
            SentinelConnectionPool,
            master=master,
            to_sentinels=to_sentinels,
            **self._connparams(asynchronous),
        )
        # kombu closes its connections with the channel.
        held = "_async_sentinel_manager" if asynchronous else "_sentinel_manager"
        setattr(self, held, pool.sentinel_manager)
        return pool
