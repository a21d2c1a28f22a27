"""The demand that an autoscaler reads of a pool: all tasks that want one of its slots, and their time."""

import pytest

from millpond import Client, Message, Settings, Square
from millpond.broker.connection import Store
from millpond.monitor.scaling import Demand, read_demand
from millpond.tasks.errors import SettingsError
from millpond.tasks.pools import Pool, PoolsTable, Queue

TABLE = PoolsTable(
    pools={"both": Pool(queues=("one", "two"))},
    queues={"one": Queue(), "two": Queue()},
)


def test_all_that_waits_counts_whatever_its_queue_and_priority(store: Store, url: str, prefix: str) -> None:
    """Tasks of all priorities of all queues of the pool are counted; the oldest has an age."""
    assert read_demand(store, TABLE, "both") == Demand(tasks=0, oldest_seconds=0.0)
    messages = [Message(Square(n=n), queue=("one", "two")[n % 2], priority=n) for n in range(10)]
    with Client(url, settings=Settings(key_prefix=prefix, table=TABLE)) as client:
        client.send_many(messages)
    seen = read_demand(store, TABLE, "both")
    assert seen.tasks == 10
    assert 0 <= seen.oldest_seconds < 60


def test_an_unknown_pool_is_named(store: Store) -> None:
    """A pool that is not in the table is an error with the names of the pools."""
    with pytest.raises(SettingsError, match="no pool is named 'mail'; there are: both"):
        read_demand(store, PoolsTable.model_construct(pools={"both": TABLE.pools["both"]}, queues={}), "mail")
