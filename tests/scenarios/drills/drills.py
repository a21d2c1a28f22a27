"""The drills: each breaks one thing and repairs it, and names the signs that an operator must see."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import psutil

from millpond.broker import schedules
from millpond.broker.inspect import depth
from millpond.producer.send_outcomes import Refused
from tests.harness.waiting import wait_until
from tests.scenarios.drills.world import BOUND, SLOTS, World


@dataclass(frozen=True)
class Broken:
    """What a drill broke: `health` returns failed health checks, `gone` is a text that leaves the page."""

    health: Callable[[], dict[str, list[str]]]
    gone: str | None = None


#: Breaks something for the length of a block, and repairs it at the end.
Fault = Callable[[World], AbstractContextManager[Broken]]


@dataclass(frozen=True)
class Drill:
    """A fault and its signs.

    The `alerts` fire, the health checks of `unwell` fail, and `page` has all of `words`.
    """

    name: str
    fault: Fault
    alerts: frozenset[str]
    unwell: frozenset[str]
    page: str
    words: tuple[str, ...]
    #: The seconds that the signs may take, in addition to the delays of the alerts.
    patience_seconds: float = 60.0


@contextmanager
def redis_gone(world: World) -> Iterator[Broken]:
    """Kill the server, and start it again."""
    world.server.kill()
    try:
        yield Broken(world.health)
    finally:
        world.server.start()


@contextmanager
def disk_full(world: World) -> Iterator[Broken]:
    """Fill the disk that the server writes to, and empty it."""
    world.disk.fill()
    try:
        yield Broken(world.health)
    finally:
        world.disk.empty()


@contextmanager
def worker_frozen(world: World) -> Iterator[Broken]:
    """Freeze one of the two worker processes, as when a virtual machine is paused."""
    frozen = psutil.Process(world.workers()[0])
    frozen.suspend()
    try:
        yield Broken(world.health)
    finally:
        frozen.resume()


@contextmanager
def consumer_stuck(world: World) -> Iterator[Broken]:
    """Occupy every slot with a task that does not end, and fill the queue behind them."""
    from broker_kinds import Act  # on the path by now

    stuck = Act(file=str(world.folder / "stuck"), what="wait", seconds=3_600)
    with world.client as client:
        client.send_many([stuck] * SLOTS)
        wait_until(
            lambda: depth.read_depth(client.store, "default").in_flight == SLOTS,
            60,
            "the slots are not taken",
        )
        sent = client.send_each([stuck] * (BOUND + 10))
        refused = sum(isinstance(each, Refused) for each in sent)
    assert refused == 10, "the queue is not full"
    try:
        yield Broken(world.health)
    finally:
        (world.folder / "stuck.go").touch()


@contextmanager
def poison(world: World) -> Iterator[Broken]:
    """Send a message that cannot be decoded, and then a task that kills its worker at each delivery."""
    from broker_kinds import Act

    with world.client as client:
        before = depth.read_depth(client.store, "default").dead
        client.store.client.lpush("default", b"{no message")
        wait_until(lambda: depth.read_depth(client.store, "default").dead > before, 60, "it is not buried")
        client.send(Act(file=str(world.folder / "poison"), what="kill"))
    yield Broken(world.health)


@contextmanager
def leader_killed(world: World) -> Iterator[Broken]:
    """Kill the scheduler that leads. Another one takes over."""
    leader = _leader(world)
    [leading] = [each for each in world.schedulers if each.pid == _pid(leader)]
    leading.kill()
    leading.wait()
    try:
        yield Broken(lambda: world.scheduler_health(leading.pid), gone=leader)
    finally:
        world.add_scheduler()


@contextmanager
def schedulers_killed(world: World) -> Iterator[Broken]:
    """Kill all schedulers, and start one."""
    leader = _leader(world)
    for scheduler in world.schedulers:
        scheduler.kill()
        scheduler.wait()
    try:
        yield Broken(lambda: world.scheduler_health(_pid(leader)))
    finally:
        world.add_scheduler()


def _leader(world: World) -> str:
    store = world.store
    leader = schedules.read_leader(store)
    store.close()
    assert leader, "no scheduler leads"
    return leader


def _pid(leader: str) -> int:
    return int(leader.split(":")[1])


DRILLS = (
    Drill(
        "Redis gone (SIGKILL)",
        redis_gone,
        frozenset({"MillpondBrokerAway"}),
        frozenset({"ready", "working"}),
        "/queues",
        ("the broker cannot be reached",),
    ),
    Drill(
        "disk full",
        disk_full,
        frozenset({"MillpondBrokerRefusesWrites"}),
        frozenset({"ready", "working"}),
        "/pools",
        ("The broker refuses writes", "No space left on device"),
    ),
    Drill(
        "worker frozen (SIGSTOP)",
        worker_frozen,
        frozenset({"MillpondProcessesMissing default", "MillpondLeasesLost default"}),
        frozenset({"live", "ready", "working"}),
        "/pools",
        ("1 of 2 processes missing",),
    ),
    Drill(
        "consumer stuck, queue full",
        consumer_stuck,
        frozenset({"MillpondQueueStuck default", "MillpondQueueNearlyFull default"}),
        frozenset({"working"}),
        "/queues",
        (f"{BOUND} of {BOUND}",),
        patience_seconds=120,
    ),
    Drill(
        "poison messages",
        poison,
        frozenset({"MillpondDeadLetters default"}),
        frozenset({"ready", "working"}),
        "/dead",
        ("too many deliveries", "not a message"),
    ),
    Drill(
        "scheduler's leader killed",
        leader_killed,
        frozenset({"MillpondPeriodsMissed tick"}),
        frozenset({"live", "ready", "working"}),
        "/schedules",
        ("another leader",),
    ),
    Drill(
        "all schedulers killed",
        schedulers_killed,
        frozenset({"MillpondNoScheduler"}),
        frozenset({"live", "ready", "working"}),
        "/schedules",
        ("no scheduler",),
    ),
)
