"""Settings of an application that need something of its transport, under a stock worker and client."""

import sys
from pathlib import Path

import pytest
from celery import Celery
from celery.contrib.migrate import migrate_tasks

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.inspect.depth import read_depth
from tests.applications.ways import worker
from tests.conftest import Eventually

PROGRAM = """
import time
from honoured import app, occupy
from millpond import Client
from millpond.broker.inspect.depth import read_depth

client = app.backend.client
results = [occupy.delay("go") for _ in range(6)]
while int(client.get("occupied") or 0) < 2:
    time.sleep(0.05)
ends = time.monotonic() + 8  # eight health checks of the subscription
while time.monotonic() < ends:
    found = read_depth(Client(app.conf.broker_url).store, "celery")
    assert found.ready == 4, found
    time.sleep(0.5)
client.set("go", 1)
assert [each.get(60) for each in results] == ["go"] * 6
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_prefetch_and_one_url_for_broker_and_results(
    url: str, tmp_path: Path, eventually: Eventually
) -> None:
    """`worker_disable_prefetch` fetches for free slots alone, and busy slots cost no subscription."""
    paths = [Path(__file__).parent]
    queues = ("celery", "everybody")
    with worker("transport", "honoured", url, tmp_path, eventually, paths=paths, queues=queues) as running:
        running.run(sys.executable, "-c", PROGRAM)
        assert "dropping stale connection" not in running.log


def test_a_stock_producer_sheds_where_the_workers_say_so(url: str, store: Store) -> None:
    """A queue whose workers declared `shed` takes a stock client's newest message, and drops its oldest."""
    limits.declare_limits(store, "calm", {"bound": 2, "overflow": "shed"}, authoritative=True)
    app = Celery(broker=url.replace("redis://", "millpond://"), set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": store.prefix}
    with app.connection_for_write() as connection:
        for n in range(4):
            app.send_task("calm.task", (n,), task_id=str(n), queue="calm", connection=connection)
    found = read_depth(store, "calm")
    assert (found.ready, found.counters.get("shed", 0)) == (2, 2)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("millpond://:p%2Fw@cache:6380/2", "redis://:**@cache:6380/2"),
        ("millpond+rediss://:pw@cache/1?ssl_cert_reqs=CERT_REQUIRED", "rediss://:**@cache:6379/1"),
        ("millpond+unix:///run/redis.sock?db=3", "socket:///run/redis.sock"),
        (
            "millpond+sentinel://:pw@a;sentinel://b/orders/1",
            "sentinel://:**@a:26379/1;sentinel://:**@b:26379/1",
        ),
    ],
)
def test_results_lie_at_the_brokers_url(written: str, found: str) -> None:
    """`result_backend` may be the broker's URL, in each of its forms."""
    backend = Celery(broker="memory://", backend=written, set_as_current=False).backend
    assert backend.as_uri() == found


def test_celery_migrate_moves_messages_to_this_transport_and_ends(url: str, store: Store) -> None:
    """`celery migrate -a -t 5` empties a queue of stock's broker into ours, and ends."""
    app = Celery(broker=url, set_as_current=False)
    for n in range(3):
        app.send_task("old.task", (n,), queue="before")
    target, options = url.replace("redis://", "millpond://"), {"global_keyprefix": store.prefix}
    with (
        app.connection_for_read() as source,
        app.connection_for_write(target, transport_options=options) as there,
    ):
        seen: list[str] = []
        migrate_tasks(
            source,
            there,
            app=app,
            ack_messages=True,
            timeout=5,
            queues={"before": "after"},
            callback=lambda _state, _body, message: seen.append(message.headers["task"]),
        )
    assert seen == ["old.task"] * 3
    with app.connection_for_read() as source:
        assert source.default_channel.client.llen("before") == 0
    assert read_depth(store, "after").ready == 3
