"""Connect kombu to the server of a `BrokerURL`: broker/url.py alone parses URLs, and no password is shown.

Connection          the connection of Millpond's application, which passes its URL in the option `url`
TransportByUrl      puts the URL of any other application into that option of the transport
ConnectingChannel   opens the connections of a channel by that option
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
    """kombu's connection to the `BrokerURL` in the transport option `url`, or to another URL (`hostname`).

    kombu does not parse the URL: it would use a transport of its own for `redis+socket://`.
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
            _set_address(self, url)


def url_of(connection: Any) -> BrokerURL | None:
    """Return the URL of a connection, or None if the application gave kombu a host name instead."""
    url = (connection.transport_options or {}).get("url")
    return url if isinstance(url, BrokerURL) else None


def hide_url(connection: Any) -> None:
    """Move the URL of a connection from its host name into the option `url`, which kombu does not show."""
    if url_of(connection) is None and "://" in (connection.hostname or ""):
        url = BrokerURL.parse(";".join(connection.alt or [connection.hostname]))
        connection.transport_options = {**(connection.transport_options or {}), "url": url}
        _set_address(connection, url)
    if url_of(connection) is not None:
        # Else kombu would try one sentinel after the other, by a transport of its own.
        connection.alt, connection.cycle, connection.uri_prefix = [], None, None


def _set_address(connection: Any, url: BrokerURL) -> None:
    """Set the address and login of a connection, for `inspect stats`, and as the key of kombu's pools."""
    host, port = url.nodes[0] if url.nodes else ("localhost", None)
    connection.hostname, connection.port, connection.virtual_host = host, port, str(url.db)
    connection.userid, connection.password = url.username, url.password


class TransportByUrl(stock.Transport):
    """A transport that parses its URL itself, so kombu passes it the whole URL."""

    can_parse_url = True
    connection_errors = (*stock.Transport.connection_errors, ReadOnlyError, BrokerAway)

    def __init__(self, client: Any, *args: Any, **kwargs: Any) -> None:
        hide_url(client)
        super().__init__(client, *args, **kwargs)

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the URL of the connection, by default with `mask` in place of its password."""
        url = url_of(self.client)
        if url is None:
            return f"redis://{uri or 'localhost'}"
        return url.with_password() if include_password else url.with_mask(mask)


class ConnectingChannel(stock.Channel):
    """A channel that connects to the server of its connection's `BrokerURL`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._require_writable()

    def _require_writable(self) -> None:
        """Raise a connection error if the server is a read-only replica: the worker connects again later."""
        try:
            self.store.client.setrange(writing_key(self.global_keyprefix), 0, b"")
        except ReadOnlyError:
            raise RedisConnectionError("the broker is a read-only replica") from None
        except ResponseError:
            pass  # a missing right, or another reason, which the first write will show

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Return redis-py's options for connections to the server. Raises `BadBrokerUrl`."""
        connection = self.connection.client
        url = url_of(connection)
        if url is None:
            return dict(super()._connparams(asynchronous))
        url.check_files()
        options = {
            "max_connections": self.max_connections,
            "socket_timeout": self.socket_timeout,
            "socket_connect_timeout": self.socket_connect_timeout,
            "health_check_interval": self.health_check_interval,
            "retry_on_timeout": self.retry_on_timeout,
            "client_name": self.client_name,
            **(connection.ssl if isinstance(connection.ssl, dict) else {}),
            **server_options(url),
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
        """Subscribe to the topics of the channel: by name if a topic is no pattern.

        An ACL allows a subscription to a pattern only if one of its own patterns is equal.
        """
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
        """Read the messages of a subscription. Without a connection or messages, return False at once."""
        connection = self.subclient.connection
        if connection is None or connection._sock is None or not connection.can_read(timeout=0):
            return False
        return bool(super()._receive())

    def _unsubscribe_from(self, queue: str) -> None:
        """Unsubscribe from the topics of a queue, each by the command with which `_subscribe` subscribed."""
        names, patterns = _split_topics(self._get_subscribe_topics(queue))
        client = self.subclient
        if client.connection and client.connection._sock:
            if names:
                client.unsubscribe(*names)
            if patterns:
                client.punsubscribe(*patterns)

    def _with_poller(self, connection_class: Any) -> Any:
        """Return a subclass whose connections leave the poller when they are closed."""
        channel = self

        class Watched(connection_class):
            def disconnect(self, *args: Any, **kwargs: Any) -> None:
                super().disconnect(*args, **kwargs)
                if channel._registered:
                    channel._on_connection_disconnect(self)

        return Watched


def _split_topics(topics: list[str]) -> tuple[list[str], list[str]]:
    """Return the topics that are plain names, and the topics that are patterns."""
    names = [topic for topic in topics if not set(topic) & set("*?[")]
    return names, [topic for topic in topics if topic not in names]


class MasterChannel(ConnectingChannel, stock.SentinelChannel):
    """A channel that connects to the master that the sentinels of its `BrokerURL` name."""

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """Return the pool of connections to the master, which the sentinels name."""
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
        # The attribute by which kombu closes the sentinels' connections with the channel.
        name = "_async_sentinel_manager" if asynchronous else "_sentinel_manager"
        setattr(self, name, pool.sentinel_manager)
        return pool
