"""More threads than connections on one client: they wait for one, and get an error when none comes free."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import pytest

from millpond.broker import limits
from millpond.broker.connection import MAX_CONNECTIONS, Store, connect
from millpond.broker.errors import BrokerAway, NoConnectionFree
from millpond.producer.client import Client
from millpond.tasks.errors import QueueFull
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from tests.conftest import Eventually

THREADS = MAX_CONNECTIONS + 60


def test_threads_beyond_the_connections_wait(url: str, prefix: str) -> None:
    """Twice as many threads as connections send at once, and every task is accepted."""
    with (
        Client(f"{url}?max_connections=20", settings=Settings(key_prefix=prefix)) as client,
        ThreadPoolExecutor(40) as threads,
    ):
        start = threading.Barrier(40)

        def send(n: int) -> None:
            start.wait()
            for _ in range(20):
                client.send(Square(n=n))

        list(threads.map(send, range(40)))
        assert client.store.client.llen(f"{prefix}default") == 800
        assert len(client.store.client.connection_pool._connections) <= 20


def test_a_thread_that_gets_no_connection_is_told_so(url: str) -> None:
    """With every connection in use for longer than the time-out, the error names the cause and the remedy."""
    with closing(connect(f"{url}?max_connections=1&timeout=0.2")) as store:
        taken = store.client.connection_pool.get_connection()
        began = time.monotonic()
        with pytest.raises(NoConnectionFree, match="max_connections=N") as refused:
            limits.read_limits(store, "default")
        assert time.monotonic() - began < 5
        assert not isinstance(refused.value, BrokerAway)
        store.client.connection_pool.release(taken)
        limits.read_limits(store, "default")


def test_threads_that_wait_for_room_leave_connections_to_others(
    url: str, prefix: str, store: Store, eventually: Eventually
) -> None:
    """While 160 threads sleep before a full queue, others on the same client send at once."""
    limits.declare_limits(store, "narrow", {"bound": 1}, authoritative=True)
    settings = Settings(key_prefix=prefix, table={"queues": {"narrow": {"bound": 1}}})  # type: ignore[arg-type]
    with Client(url, settings=settings) as client, ThreadPoolExecutor(THREADS) as threads:
        client.send(Square(n=0), queue="narrow")
        waiting = [
            threads.submit(
                client.send, Square(n=n), queue="narrow", overflow="block", timeout=timedelta(seconds=60)
            )
            for n in range(THREADS)
        ]
        eventually(lambda: store.client.zcard(f"{prefix}millpond:{{narrow}}:line") == THREADS, 30)
        assert client.send(Square(n=1)).id
        with pytest.raises(QueueFull):
            client.send(Square(n=1), queue="narrow", overflow="reject")
        limits.change_limits(store, "narrow", bound=1000)
        assert all(each.result(60).id for each in waiting)
