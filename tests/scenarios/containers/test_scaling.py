"""Scale a pool from one container to three and back under load: limits of the fleet hold, nothing is lost."""

from collections.abc import Iterator
from time import monotonic, time

import pytest

from millpond.broker import limits
from millpond.broker.connection import Store, connect
from tests.conftest import Eventually
from tests.scenarios.containers import ledger
from tests.scenarios.containers.load import Load
from tests.scenarios.containers.stack import Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

#: Of the whole fleet; one container has five slots, so three of them could run fifteen tasks at once.
RATE, BURST, IN_FLIGHT = 60, 10, 8


@pytest.fixture
def store(stack: Stack) -> Iterator[Store]:
    """The stack's broker; back to one container and no limits in the end."""
    opened = connect(stack.broker_url)
    yield opened
    limits.change_limits(opened, "default", rate=None, burst=None, in_flight=None)
    opened.close()
    stack.up(worker_default=1)


def scaled(stack: Stack, count: int, eventually: Eventually) -> None:
    """Run so many containers of the pool `default`, and wait until all take messages."""
    stack.up(worker_default=count)
    eventually(lambda: stack.is_healthy("worker-default"), 120, every_seconds=0.5)


def runs_of(stack: Stack, load: Load) -> dict[str, list[ledger.Run]]:
    """Return the runs of the accepted tasks."""
    return ledger.runs(stack.ledger_url, load.taken)


def test_limits_of_the_fleet_hold_while_it_grows_and_shrinks(
    stack: Stack, store: Store, eventually: Eventually
) -> None:
    """With a rate and an in-flight limit, 1 to 3 to 1 containers never do more together, and lose nothing."""
    limits.change_limits(store, "default", rate=RATE, burst=BURST, in_flight=IN_FLIGHT)
    begun = time()
    with Load(stack.broker_url, ("default",), rate=RATE * 1.2, hold_seconds=0.1) as load:
        eventually(lambda: len(load.taken) > 100, 30)
        scaled(stack, 3, eventually)
        grown = time()
        eventually(lambda: time() > grown + 10, 20, every_seconds=0.5)
        shrinking = monotonic()
        scaled(stack, 1, eventually)
        print(f"scaled in in {monotonic() - shrinking:.1f} s")
    load.finish(eventually)
    found = runs_of(stack, load)
    assert ledger.lost(load.taken, found) == []
    assert ledger.repeats(found, []) == (0, [])
    assert len({run.host for many in found.values() for run in many}) == 3
    assert ledger.most_at_once(found) <= IN_FLIGHT
    assert ledger.most_started(found, within_seconds=10.0) <= RATE * 10 + BURST + IN_FLIGHT
    lasted = max(run.started for many in found.values() for run in many) - begun
    print(f"{len(found) / lasted:.0f} tasks/s, {ledger.most_at_once(found)} at once")


def test_three_containers_do_three_times_the_work(stack: Stack, store: Store, eventually: Eventually) -> None:
    """Tasks that wait for something else are run twice as fast at least by three containers as by one."""
    speeds = []
    for containers in (1, 3):
        scaled(stack, containers, eventually)
        limits.change_limits(store, "default", paused=True)
        with Load(stack.broker_url, ("default",), rate=1000, hold_seconds=0.1) as load:
            eventually(lambda load=load: len(load.taken) >= 500, 60)
        limits.change_limits(store, "default", paused=None)
        load.finish(eventually)
        found = runs_of(stack, load)
        starts = [run.started for many in found.values() for run in many]
        speeds.append(len(starts) / (max(starts) - min(starts)))
        assert ledger.lost(load.taken, found) == []
    print("tasks/s by one and by three containers:", *(f"{speed:.0f}" for speed in speeds))
    assert speeds[1] > 2 * speeds[0]
