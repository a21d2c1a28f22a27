"""The fetcher of a worker process, on real connections; the test is its event loop."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from redis import Redis

from millpond.broker.connection import Store
from millpond.broker.consume.fetcher import Fetcher
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.keys import QueueKeys
from tests.harness.manual_consumer import LEASE_MS


class ManualFetcher:
    """A worker process that consumes one queue.

    `deliver` gets each fetched message; `of_connections` are options of redis-py for the connections.
    """

    def __init__(
        self,
        url: str,
        store: Store,
        queue: str,
        in_flight: InFlightMessages,
        deliver: Callable[[Any], None],
        **of_connections: Any,
    ) -> None:
        self.in_flight = in_flight
        self._url, self._of_connections = url, of_connections
        self._clients: list[Any] = []
        cycle = SimpleNamespace(connect_watched=_connected, wake_up_in=lambda _: None)
        channel = SimpleNamespace(
            store=store,
            new_client=self._new_client,
            deliver=deliver,
            connection=SimpleNamespace(cycle=cycle),
            global_keyprefix=store.prefix,
            socket_timeout=5,
        )
        self.fetcher = Fetcher(channel, in_flight, lease_ms=LEASE_MS)
        self.fetcher.start_queue(QueueKeys(queue, store.prefix))

    def close(self) -> None:
        """End as a killed process does: its connections are closed."""
        for client in self._clients:
            client.close()

    def _new_client(self) -> Any:
        client = Redis.from_url(self._url, single_connection_client=True, **self._of_connections)
        self._clients.append(client)
        return client


def _connected(_channel: Any, client: Any, _kind: str) -> Any:
    client.connection.connect()
    return client.connection
