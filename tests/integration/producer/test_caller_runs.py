"""A producer that runs the tasks that a full queue refuses: counted, named, dead-lettered as in the pool."""

import json
import subprocess
import sys

import pytest

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.inspect import dead_letters
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys
from millpond.broker.message import new_id
from millpond.broker.publish import Accepted
from millpond.producer.backpressure import FlowControl
from millpond.producer.caller_runs import CallerRuns
from millpond.producer.client import Client
from millpond.producer.message import Message, compose_job
from millpond.producer.send_outcomes import RanHere
from millpond.producer.server_clock import ServerClock
from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import FinalError, HandlerMissing, RetryLater
from millpond.tasks.handlers import body
from millpond.tasks.middleware import Sending
from millpond.tasks.squares.contract import Square
from tests.conftest import Eventually


class Bodyless(Contract, kind="caller.bodyless"):
    """A kind without a handler."""


class Do(Contract, kind="caller.do"):
    """A task that behaves as its field asks."""

    what: str


@body(Do)
def do(job: Do, context: Context) -> str:
    if job.what == "fail":
        raise FinalError("told to fail")
    if job.what == "later":
        raise RetryLater("not now", after_seconds=60)
    if job.what == "interrupt":
        raise KeyboardInterrupt
    return context.id


@pytest.fixture
def client(client: Client) -> Client:
    limits.change_limits(client.store, "default", bound=2, overflow="caller_runs")
    return client


def fill(client: Client) -> None:
    client.send_many([Square(n=-1), Square(n=-2)])


def counts(store: Store) -> tuple[int, int, int]:
    depth = inspect_depth.read_depth(store, "default")
    return depth.ready, depth.in_flight, depth.dead


def test_tasks_that_fit_are_sent_and_the_others_run_here(client: Client) -> None:
    """Tasks that find room are sent; the caller runs the rest in order, and each outcome has `ran_here`."""
    outcomes = list(client.send_each(Square(n=n) for n in range(5)))
    assert [outcome.ran_here for outcome in outcomes] == [
        None, None, *(RanHere("succeeded", n * n) for n in (2, 3, 4))
    ]  # fmt: skip
    assert counts(client.store) == (2, 0, 0)
    assert inspect_depth.read_depth(client.store, "default").counters["high_water"] == 2


def test_a_batch_counts_what_its_producer_ran(client: Client) -> None:
    """A task that its caller ran counts in its batch as sent and settled, with its result."""
    fill(client)
    with client.batch() as batch:
        tally = batch.send_many([Square(n=7), Do(what="fail"), Do(what="fine")])
    assert (tally.accepted, tally.ran_here) == (3, 3)
    summary = batch.summary()
    assert (summary.sent, summary.succeeded, summary.failed, summary.complete) == (3, 2, 1, True)
    assert next(batch.results()).value == 49


def test_a_failure_here_is_a_value_and_a_dead_letter(client: Client) -> None:
    """A body that fails in the producer fails as in the pool: a dead letter, and no exception of `send`."""
    fill(client)
    sent = client.send(Do(what="fail"))
    assert sent.ran_here == RanHere("failed", error="FinalError: told to fail")
    [letter] = dead_letters.read_dead_letters(client.store, "default")
    assert (letter.task_id, letter.reason) == (sent.id, "FinalError")


def test_a_body_that_asks_for_later_is_left_to_the_pool(client: Client) -> None:
    """`RetryLater` in the producer delays the task, which the pool then runs."""
    fill(client)
    assert client.send(Do(what="later")).ran_here == RanHere("delayed", error="RetryLater: not now")
    assert inspect_depth.read_depth(client.store, "default").delayed == 1


def test_an_interrupted_run_goes_to_the_pool(client: Client) -> None:
    """Ctrl-C in a body that the caller runs gives the task to the pool: it was accepted."""
    fill(client)
    with pytest.raises(KeyboardInterrupt):
        client.send(Do(what="interrupt"))
    assert counts(client.store) == (3, 0, 0)


def test_a_name_ends_with_the_run_here(client: Client) -> None:
    """A unique key of a task that its caller runs is taken until the task has ended."""
    fill(client)
    first = client.send(Do(what="fine"), once="order-42")
    assert client.send(Do(what="fine"), once="order-42").duplicate_of is None
    later = client.send(Do(what="later"), once="order-42")
    assert client.send(Do(what="fine"), once="order-42").duplicate_of == later.id != first.id


def test_a_body_that_is_not_here_is_one_clear_line(client: Client) -> None:
    """A task whose handler the caller lacks is refused, and the error names another overflow policy."""
    fill(client)
    with pytest.raises(HandlerMissing, match=r"'caller.bodyless' cannot run here.*choose another overflow"):
        client.send(Bodyless())
    assert counts(client.store) == (2, 0, 0)


def test_a_task_that_cannot_run_here_behind_others_goes_to_the_pool(client: Client) -> None:
    """A missing handler is noticed for the first task of a call. A later task goes to the pool as sent."""
    jobs = [Square(n=1), Square(n=2), Bodyless()]
    messages = [
        compose_job(Message(job), Sending(job, new_id(), "default"), now_ms=client.now_ms()) for job in jobs
    ]
    runs = CallerRuns(client.store, ServerClock(client.store))
    answers = list(runs.send_all(messages, FlowControl(queue_full=True)))
    assert answers == [Accepted(message.id) for message in messages]
    assert counts(client.store) == (3, 0, 0)


def test_a_killed_caller_loses_nothing(client: Client, url: str, prefix: str, eventually: Eventually) -> None:
    """A producer killed while it runs a task leaves the task under a lease; then the pool gets it."""
    fill(client)
    code = (
        "from millpond.producer.client import Client; from millpond.tasks.settings import Settings\n"
        "from millpond.tasks.squares.contract import Square\n"
        f"client = Client(settings=Settings(broker_url={url!r}, key_prefix={prefix!r}))\n"
        "client.send(Square(n=9, hold_seconds=60), overflow='caller_runs')"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        eventually(lambda: counts(client.store) == (2, 1, 0), 30)
        process.kill()
    keys = QueueKeys("default", client.store.prefix)
    [caller] = client.store.client.zrange(keys.consumers, 0, -1)
    client.store.client.zadd(keys.consumers, {caller: 1})  # its lease runs out
    lease = InFlightMessages().lease_on(keys)
    for _ in range(2):
        reply = fetch_call.call_and_wait(client.store, FetchRequest(lease, 3, 3, []), lease_ms=60_000)
        if reply.messages:
            break
    assert len(reply.messages) == 3
    ids = {json.loads(each.payload)["headers"]["kwargsrepr"] for each in reply.messages}
    assert any("9" in shown for shown in ids)
