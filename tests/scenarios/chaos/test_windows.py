"""Kill a process exactly in each window, on Millpond's transport, and count the runs.

The same windows on kombu's own transport are in test_windows_stock.py: they show the losses there.
"""

from collections.abc import Callable

import pytest

from millpond import Client
from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys

LEASE_SECONDS = 1.0


@pytest.fixture
def pond(bench: Callable) -> object:
    """Make a bench of Millpond's transport, with a lease of a second."""
    return bench("pond", lease_seconds=LEASE_SECONDS)


def settled(store: Store) -> bool:
    """True if nothing of the queue is left to do."""
    depth = inspect_depth.read_depth(store, "chaos")
    return not (depth.ready or depth.delayed or depth.in_flight)


@pytest.mark.slow
def test_killed_between_the_pop_and_the_record(pond, eventually) -> None:
    """A worker that dies with a fetched reply unread loses nothing: the pop has recorded the messages."""
    pond.send("one")
    pond.run_until_killed("pop to record")
    assert inspect_depth.read_depth(pond.store, "chaos").in_flight == 1
    pond.start_worker()
    eventually(lambda: settled(pond.store), 60)
    assert pond.runs() == [("one", 0)]


def test_a_producer_killed_before_it_is_told(pond, eventually) -> None:
    """A producer that dies before it learns that its task was taken may send it again: it runs once."""
    assert pond.send("one", "publish to return") != 0
    assert inspect_depth.read_depth(pond.store, "chaos").ready == 1
    assert pond.send("one") == 0
    pond.start_worker()
    eventually(lambda: settled(pond.store) and pond.runs(), 60)
    assert pond.runs() == [("one", 0)]


def test_killed_between_the_body_and_its_settlement(pond, eventually) -> None:
    """A task whose worker dies before settling it runs again, and is counted once in its batch."""
    from tests.scenarios.chaos.fleet import settings_for
    from tests.scenarios.chaos.kinds import Work

    with Client(settings=settings_for(pond.env["CHAOS_BROKER"])) as client:
        with client.batch() as batch:
            batch.send(Work(n=1), id="one")
        pond.run_until_killed("body to settle")
        pond.start_worker()
        eventually(lambda: batch.summary().complete, 60)
        assert pond.runs() == [("one", 0), ("one", 0)]
        assert batch.summary().succeeded == 1
        assert [result.value for result in batch.results()] == [1]


@pytest.mark.slow
def test_killed_while_it_sweeps_for_another(pond, eventually) -> None:
    """A worker that dies as it takes over a dead worker's messages loses none and keeps none from others."""
    pond.send("one")
    dead = InFlightMessages().lease_on(QueueKeys("chaos"))
    assert fetch_call.call_and_wait(pond.store, FetchRequest(dead, 1, 1, []), lease_ms=1).messages
    pond.run_until_killed("sweep to requeue")
    pond.start_worker()
    eventually(lambda: settled(pond.store), 60)
    assert pond.runs() == [("one", 0)]


@pytest.mark.slow
def test_killed_between_the_retry_and_the_acknowledgement(pond, eventually) -> None:
    """A retry takes the place of the run that asked for it in one step: no run is doubled."""
    pond.send("one", retries=1)
    pond.run_until_killed("retry to acknowledge")
    depth = inspect_depth.read_depth(pond.store, "chaos")
    assert (depth.ready, depth.in_flight, depth.delayed) == (0, 0, 1)
    pond.start_worker()
    eventually(lambda: settled(pond.store), 60)
    assert pond.runs("retry") == [("one", 0)]
    assert pond.runs() == [("one", 1)]
