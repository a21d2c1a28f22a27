"""kombu's Redis transport and Millpond's side by side: every difference stands in broker/CHANNELS.md."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from channel_broker import TEN_STEPS, Broker, drained, send, take
from channel_scenarios import SCENARIOS, two_channels
from kombu import Connection, Consumer
from kombu.exceptions import OperationalError
from redis import Redis

from millpond.broker import limits
from millpond.broker.connection import connect
from millpond.broker.errors import QueueFull
from millpond.worker.local.valkey import Server
from tests.conftest import Eventually
from tests.harness.databases import fresh_database

TRANSPORT = "millpond.broker.transport:Transport"
TABLE = Path(__file__).parents[3] / "broker" / "CHANNELS.md"


def broker(url: str, **how: Any) -> Broker:
    """Return a transport on a database."""
    return Broker(
        url, lambda **options: Connection(url, transport_options=options, **how), Redis.from_url(url)
    )


@pytest.fixture
def stock(server: Server) -> Iterator[Broker]:
    """Return kombu's own transport."""
    found = broker(fresh_database(server))
    yield found
    found.client.close()


@pytest.fixture
def ours(server: Server, eventually: Eventually) -> Iterator[Broker]:
    """Return Millpond's transport; nothing of it is left when its connections are closed."""
    found, before = broker(fresh_database(server), transport=TRANSPORT), set(threading.enumerate())
    yield found
    eventually(lambda: all(each.name != "millpond-leases" for each in set(threading.enumerate()) - before))
    assert not found.client.keys("*held:*"), "a closed channel has nothing in flight"
    found.client.close()


def differences() -> dict[str, tuple[str, str]]:
    """Return the table's words on each difference: as on kombu's Redis, and here."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| .+ \|$", TABLE.read_text(), re.MULTILINE)
    return {what: (theirs, here) for what, theirs, here in rows if not set(what) <= {"-"} and what != "what"}


@pytest.mark.parametrize("what", SCENARIOS)
def test_a_channel_does_as_kombus_or_as_the_table_says(what: str, stock: Broker, ours: Broker) -> None:
    """Each way to consume and to publish ends alike on both transports, or its two ends are in the table."""
    theirs, here = SCENARIOS[what](stock), SCENARIOS[what](ours)
    assert (theirs, here) == differences().get(what, (theirs, theirs))
    assert (what in differences()) == (theirs != here)


def test_a_full_channel_leaves_the_rest_to_the_other(ours: Broker) -> None:
    """Of two consumers on one connection with room for six in all, both fill.

    On kombu's Redis it happens that one which is full pops one more, and leaves it unread.
    """
    assert two_channels(ours, prefetch_count=3) == "[0, 1, 2, 3, 4, 5], left: 0"


def test_the_table_names_scenarios() -> None:
    """Every row of the table names a scenario that is tried."""
    assert differences().keys() <= SCENARIOS.keys()


def test_stock_clients_with_ten_priority_steps_are_served(server: Server) -> None:
    """Messages on lists of their own are fetched by a consumer with the same options."""
    url = fresh_database(server)
    with broker(url).queue(**TEN_STEPS) as (producer, _, _):
        for step in range(10):
            producer.publish(step, priority=step)
    with broker(url, transport=TRANSPORT).queue(**TEN_STEPS) as (_, queue, _):
        assert queue.queue_declare(passive=True).message_count == 10
        assert sorted(message.payload for message in take(queue, 10)) == list(range(10))


def test_messages_on_lists_of_their_own_follow_each_other_at_once(server: Server) -> None:
    """The lists are looked at once a second, and more often while messages come."""
    url, got = fresh_database(server), []
    with (
        broker(url).queue(**TEN_STEPS) as (producer, _, _),
        broker(url, transport=TRANSPORT).queue(**TEN_STEPS) as (_, queue, connection),
        Consumer(connection, [queue], callbacks=[lambda body, message: (got.append(body), message.ack())]),
    ):
        send(producer, -1, priority=5)
        drained(connection, got, 1)
        began = monotonic()
        for number in range(10):
            send(producer, number, priority=5)
            drained(connection, got, number + 2)
    assert got == [*range(-1, 10)]
    assert monotonic() - began < 7  # on a busy machine; each took a second


def test_a_batch_is_one_call(ours: Broker) -> None:
    """`Producer.batch()` sends its messages in one round trip."""

    def calls() -> int:
        return int(ours.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    with ours.queue() as (producer, _, _):
        producer.publish("first")  # a server that does not know the script is sent it
        before = calls()
        with producer.batch():
            for n in range(100):
                producer.publish(n)
        assert calls() - before == 1


def test_a_full_queue_is_celerys_error_and_ours(ours: Broker) -> None:
    """`QueueFull` is raised at once although the policy would retry, and both kinds of `except` catch it."""
    store = connect(ours.url)
    limits.change_limits(store, "q", bound=1)
    with ours.queue() as (producer, _, _):
        producer.publish(0)
        with pytest.raises(OperationalError) as raised:
            producer.publish(1, retry=True, retry_policy={"max_retries": 100, "interval_start": 10})
    assert isinstance(raised.value, QueueFull)
    assert (raised.value.bound, raised.value.depth) == (1, 1)
    store.close()


def test_a_sender_can_wait_for_room(ours: Broker, eventually: Eventually) -> None:
    """With `full_queue_timeout` a publish returns once a consumer has made room."""
    store = connect(ours.url)
    limits.change_limits(store, "q", bound=1)
    sent: list[str] = []

    def send() -> None:
        with ours.queue(full_queue_timeout=60) as (producer, _, _):
            producer.publish(1)
            sent.append("sent")

    with ours.queue() as (producer, queue, _):
        producer.publish(0)
        sender = threading.Thread(target=send)
        sender.start()
        eventually(lambda: ours.client.exists("millpond:{q}:line"))
        assert not sent
        take(queue)[0].ack()
        sender.join(20)
    assert sent == ["sent"]
    store.close()


def test_a_broker_that_is_away_is_retried_as_the_policy_says() -> None:
    """A publish to a broker that is away is retried by the policy, and then is an `OperationalError`."""
    tries: list[object] = []
    away = Connection("redis://127.0.0.1:1/0", transport=TRANSPORT)
    with pytest.raises(OperationalError):
        away.Producer().publish(
            0,
            routing_key="q",
            retry=True,
            retry_policy={
                "max_retries": 2,
                "interval_start": 0,
                "interval_step": 0,
                "errback": lambda error, _: tries.append(error),
            },
        )
    assert tries
