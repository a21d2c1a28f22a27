"""Sending to a real server: accepted, refused and duplicate tasks, as stock Celery reads them."""

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.worker.request import Request
from kombu import Connection

from millpond.broker import limits
from millpond.broker.consume import fetch_call
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys
from millpond.producer.client import Client
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Refused, Sent, Tally
from millpond.tasks.contract import Contract
from millpond.tasks.errors import BadContract, BatchClosed, BrokerAway, QueueFull, UnknownQueue
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square


class Long(Contract, kind="test.long"):
    """A task with an argument that is too long for a message."""

    text: str


@pytest.fixture
def client(each_url: str, prefix: str) -> Iterator[Client]:
    with Client(settings=Settings(broker_url=each_url, key_prefix=prefix)) as opened:
        yield opened


def waiting(client: Client) -> int:
    return inspect_depth.read_depth(client.store, "default").ready


def bound(client: Client, messages: int, overflow: str = "block") -> None:
    limits.change_limits(client.store, "default", bound=messages, overflow=overflow)


def test_a_message_of_the_client_is_a_task_for_stock_celery(
    client: Client, each_url: str, prefix: str
) -> None:
    """A stock Celery worker builds its request of the client's message: its name, id and arguments."""
    sent = client.send(Square(n=7), priority=9)
    app = Celery("stock", broker=each_url, set_as_current=False)

    @app.task(name="squares.square", shared=False)
    def task(n: int) -> int:
        return n

    with Connection(each_url, transport_options={"global_keyprefix": prefix}) as connection:
        with connection.channel() as channel:
            message = channel.basic_get("default")
        request = Request(message, app=app, task=task)
    assert (request.id, request.name, request.args, request.kwargs) == (
        sent.id,
        "squares.square",
        [],
        {"n": 7},
    )
    assert message.properties["priority"] == 9


def test_many_are_sent_in_constant_chunks(client: Client) -> None:
    """`send_many` takes an iterable that is longer than a chunk, and counts it."""
    assert client.send_many(Square(n=n) for n in range(2_500)) == Tally(accepted=2_500)
    assert waiting(client) == 2_500


def test_an_endless_iterable_is_sent_as_it_comes(client: Client) -> None:
    """The first outcome comes before the second item is asked for: no send waits for a full chunk."""
    asked: list[int] = []

    def endless() -> Iterator[Square]:
        while True:
            asked.append(len(asked))
            yield Square(n=len(asked))

    outcomes = client.send_each(endless())
    assert isinstance(next(outcomes), Sent)
    assert len(asked) == 1


def test_a_duplicate_is_a_value(client: Client) -> None:
    """A send with a unique key that is taken returns the first task's id, and nothing is sent."""
    first = client.send(Square(n=1), once="order-42", for_=timedelta(minutes=1))
    again = client.send(Square(n=1), once="order-42", for_=timedelta(minutes=1))
    assert first.duplicate_of is None
    assert again.duplicate_of == first.id
    assert waiting(client) == 1
    many = [Message(Square(n=n), once=f"n-{n % 2}") for n in range(4)]
    assert client.send_many(many) == Tally(accepted=2, duplicates=2)


def test_a_repeat_into_a_closed_batch_is_a_duplicate(client: Client) -> None:
    """A producer that got no reply sends again: its task was accepted, though the batch is closed by now."""
    with client.batch() as batch:
        first = batch.send(Square(n=1), once="order-44")
    assert client.send(Square(n=1), once="order-44", batch=batch.id).duplicate_of == first.id
    with pytest.raises(BatchClosed):
        client.send(Square(n=2), once="order-45", batch=batch.id)


def test_a_refused_send_leaves_no_claim(client: Client) -> None:
    """A unique key whose message was refused can be sent again."""
    bound(client, 1, "reject")
    client.send(Square(n=1))
    with pytest.raises(QueueFull):
        client.send(Square(n=2), once="order-43")
    bound(client, 2, "reject")
    assert client.send(Square(n=2), once="order-43").duplicate_of is None


def test_a_full_queue_says_how_full(client: Client) -> None:
    """`QueueFull` carries the depth, the bound, the age of the oldest message, and a remedy."""
    bound(client, 2)
    client.send_many([Square(n=1), Square(n=2)])
    with pytest.raises(QueueFull, match="millpond queue set default --bound") as refused:
        client.send(Square(n=3), timeout=timedelta(milliseconds=50))
    assert (refused.value.depth, refused.value.bound) == (2, 2)
    assert refused.value.oldest_seconds is not None


def test_the_policy_of_the_queue_holds_unless_the_send_says_otherwise(client: Client) -> None:
    """The queue's `reject` refuses; a send with `shed` gets in, and the oldest is a dead letter."""
    bound(client, 1, "reject")
    client.send(Square(n=1))
    outcomes = list(client.send_each([Square(n=2), Square(n=3)]))
    assert [type(outcome) for outcome in outcomes] == [Refused, Refused]
    assert client.send(Square(n=4), overflow="shed").duplicate_of is None
    depth = inspect_depth.read_depth(client.store, "default")
    assert (depth.ready, depth.dead) == (1, 1)


def test_send_many_stops_at_the_first_refusal_and_says_how_many(client: Client) -> None:
    """A refusal in `send_many` is an error with the number of tasks accepted before it."""
    bound(client, 3)
    with pytest.raises(QueueFull) as refused:
        client.send_many((Square(n=n) for n in range(9)), overflow="reject")
    assert refused.value.__notes__ == ["3 messages were accepted before this one"]
    assert waiting(client) == 3


def test_block_goes_on_when_there_is_room(client: Client) -> None:
    """A blocked sender goes on as soon as a worker makes room, and its messages are accepted once."""
    bound(client, 2)
    done: list[Tally] = []
    sender = threading.Thread(target=lambda: done.append(client.send_many(Square(n=n) for n in range(5))))
    sender.start()
    lease = InFlightMessages().lease_on(QueueKeys("default", client.store.prefix))
    for _ in range(200):
        fetch_call.call_and_wait(client.store, FetchRequest(lease, 1, 1, []), lease_ms=60_000)
        sender.join(0.02)
        if not sender.is_alive():
            break
    sender.join(10)
    assert done == [Tally(accepted=5)]
    assert inspect_depth.read_depth(client.store, "default").counters["published"] == 5
    assert inspect_depth.read_depth(client.store, "default").counters["high_water"] == 2


def test_a_delayed_message_waits_beside_the_queue(client: Client) -> None:
    """A message with a delay is kept by the broker until it is due, and takes no room in the queue."""
    client.send(Square(n=1), delay=timedelta(minutes=5))
    depth = inspect_depth.read_depth(client.store, "default")
    assert (depth.ready, depth.delayed) == (0, 1)


def test_a_queue_that_nobody_serves_is_refused(client: Client) -> None:
    """A mistyped queue is an error with the known queues; a queue that workers declared is known."""
    with pytest.raises(UnknownQueue, match="default, email, files"):
        client.send(Square(n=1), queue="defualt")
    limits.declare_limits(client.store, "extra", {"bound": 5}, authoritative=True)
    assert client.send(Square(n=1), queue="extra").queue == "extra"


def test_an_item_that_is_wrong_stops_the_stream(client: Client) -> None:
    """An item that does not fit its contract is not sent, and neither are the items behind it."""
    with pytest.raises(Exception, match=r"squares\.square does not fit"):
        client.send_many([("squares.square", {"n": 1}), ("squares.square", {"n": "one"}), Square(n=3)])
    assert waiting(client) <= 1


def test_a_message_that_workers_would_bury_for_its_length_is_refused(
    client: Client, each_url: str, prefix: str
) -> None:
    """A message that is too long is refused with its queue's limit; under a higher limit it is sent."""
    long = Long(text="x" * 8_000_000)
    with pytest.raises(BadContract, match=r"of 1\d,\d{3},\d{3} bytes is too long: .* at most 10,000,000\."):
        client.send(long)
    assert waiting(client) == 0
    with pytest.raises(BadContract, match="is too long"):
        client.batch(then=long)
    client.store.client.hset(QueueKeys("default", prefix).limits, "message_bytes", 20_000_000)
    with Client(settings=Settings(broker_url=each_url, key_prefix=prefix)) as another:
        assert another.send(long).queue == "default"


def test_a_closed_batch_takes_nothing(client: Client) -> None:
    """Sending into a closed batch is refused and not counted in it."""
    with client.batch() as batch:
        batch.send(Square(n=1))
    with pytest.raises(BatchClosed, match="Open a new one"):
        batch.send(Square(n=2))
    assert batch.summary().sent == 1


def test_a_broker_that_is_away_is_one_clear_error() -> None:
    """A broker that cannot be reached is `BrokerAway`, with the thing to check."""
    with (
        Client(settings=Settings(broker_url="redis://127.0.0.1:1/0")) as client,
        pytest.raises(BrokerAway, match="Is it running"),
    ):
        client.send(Square(n=1))


def test_threads_share_a_client(client: Client) -> None:
    """One client sends from many threads, and each task is accepted once."""
    threads = [
        threading.Thread(target=client.send_many, args=([Square(n=n) for n in range(50)],)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert waiting(client) == 200


def test_a_client_is_used_on_both_sides_of_a_fork(url: str, prefix: str) -> None:
    """A forked child sends with its parent's client without disturbing it."""
    with Client(settings=Settings(broker_url=url, key_prefix=prefix)) as client:
        client.send(Square(n=1))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                client.send_many([Square(n=2)] * 20)
                code = 0
            finally:
                os._exit(code)
        client.send_many([Square(n=3)] * 20)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert waiting(client) == 41


def test_the_sent_time_is_the_servers(client: Client, monkeypatch: Any) -> None:
    """A producer whose wall clock is wrong still dates its messages by the server's clock."""
    monkeypatch.setattr("time.time", lambda: 0.0)
    client.send(Square(n=1))
    oldest = inspect_depth.read_depth(client.store, "default").oldest_seconds
    assert oldest is not None
    assert oldest < 60


def test_a_full_queue_that_is_paused_says_so(client: Client) -> None:
    """`QueueFull` of a paused queue has the command that resumes it, and no time from its drain rate."""
    lease = InFlightMessages().lease_on(QueueKeys("default", client.store.prefix))
    fetch_call.call_and_wait(client.store, FetchRequest(lease, 1, 1, []), lease_ms=30_000)  # a pool is there
    bound(client, 1)
    client.store.client.hset(QueueKeys("default", client.store.prefix).drain_rate, "rate", "1000")
    client.send(Square(n=1))
    with pytest.raises(QueueFull, match=r"Send again in 0\.1 s"):
        client.send(Square(n=2), overflow="reject")
    limits.change_limits(client.store, "default", paused=True)
    with pytest.raises(QueueFull, match=r"paused.*millpond queue resume default") as refused:
        client.send(Square(n=2), overflow="reject")
    assert (refused.value.paused, refused.value.retry_after) == (True, None)
    assert "Send" not in str(refused.value)
    with pytest.raises(QueueFull, match="paused"):
        client.send(Square(n=2), overflow="block", timeout=timedelta(seconds=0.1))


def test_a_full_queue_without_a_pool_gives_no_time(client: Client) -> None:
    """A drain rate that was measured before the last worker left gives no time to come back."""
    bound(client, 1)
    client.store.client.hset(QueueKeys("default", client.store.prefix).drain_rate, "rate", "1000")
    client.send(Square(n=1))
    with pytest.raises(QueueFull, match="Send later") as refused:
        client.send(Square(n=2), overflow="reject")
    assert refused.value.retry_after is None
