"""Facts of pools, made up for the rules of the diagnosis."""

from collections import Counter
from dataclasses import replace
from typing import Any

from millpond.broker.inspect.depth import Depth
from millpond.broker.limits import Limits
from millpond.broker.stats.calls import CallFigures, add_call_field, add_counted_call
from millpond.broker.stats.elasticity import Elasticity
from millpond.broker.stats.heartbeats import Heartbeat
from millpond.broker.stats.window import RESULTS, KindFigures, Place, Window
from millpond.monitor.diagnosis import PoolFacts
from millpond.monitor.snapshot import PoolView, QueueView

PEER = Place("peer", "10.0.0.7:5432", "psycopg", "shop.orders:41", "order")


def queue(
    ready: int = 0, in_flight: int = 0, *, in_rate: float = 0.0, out_rate: float = 0.0, **limits: Any
) -> QueueView:
    depth = Depth("q", ready, 0, in_flight, 0, 1, None, {})
    return QueueView(depth, Limits(**limits), ("p",), in_rate=in_rate, out_rate=out_rate)


def heartbeat(executor: str = "threads", **more: Any) -> Heartbeat:
    return replace(
        Heartbeat("p.1@h", "p", "h", 1, executor, 8, 8, 8, 0, False, 60.0, ("q",), cores=4), **more
    )


def window(seconds: float, *places: tuple[Place, float], mean: float = 0.4, **figures: Any) -> Window:
    """Return a window in which eight slots were all in use, spending shares of their time in places."""
    ended = round(8 * seconds / mean)
    kind = KindFigures(ended=ended, service_seconds=ended * mean, **figures)
    spent = {place: int(share * 8 * seconds * 1e6) for place, share in places}
    made = Window(seconds, 8 * seconds, 8 * seconds, {"order": kind})
    made.places.update(spent)
    return made


def elastic(value: float, error: float = 0.1, **more: Any) -> Elasticity:
    rate = 20.0
    measured = Elasticity(value, error, 8, 4, rate, rate / 2**value, 8.0, 10.0, 1, 0.4)
    step = {"step": value, "step_error": error, "step_part": 6, "step_rate": rate * 0.75**value}
    return replace(measured, **{**step, **more})


def facts(*places: tuple[Place, float], mean: float = 0.4, **more: Any) -> PoolFacts:
    view = PoolView("p", None, (queue(ready=1_000),), (heartbeat(),))
    made = PoolFacts(view, window(12, *places, mean=mean), window(60, *places, mean=mean))
    return replace(made, **more)


def with_queue(**of_queue: Any) -> PoolFacts:
    return replace(BUSY, view=replace(BUSY.view, queues=(queue(**of_queue),)))


def calling(**sums: int) -> PoolFacts:
    minute = replace(BUSY.minute, calls={("order", PEER.name): CallFigures(**sums)})
    return replace(BUSY, minute=minute)


def with_items(fixed: float, each: float) -> PoolFacts:
    """Return a pool whose runs carry one to seven items, four on average, and take 0.4 s on average."""
    fields = Counter[str]()
    for n in range(140):
        add_counted_call(fields, "order", "", 1 + n % 7, fixed + each * (1 + n % 7))
    calls: dict[tuple[str, str], CallFigures] = {}
    for name, value in fields.items():
        add_call_field(calls, name.partition(":")[2], value)
    measured = elastic(1.0) if fixed else None
    return replace(BUSY, minute=replace(BUSY.minute, calls=calls), elasticity=measured)


def idle(*, children: int = 0, **of_heartbeat: float) -> PoolFacts:
    """Return a pool with tasks ready, a third of whose slots are in use."""
    seen = [
        replace(each, busy_seconds=each.busy_seconds / 3, children=children)
        for each in (BUSY.recent, BUSY.minute)
    ]
    view = replace(BUSY.view, running=(heartbeat(**of_heartbeat),))
    return replace(BUSY, view=view, recent=seen[0], minute=seen[1])


def waiting_for_results() -> PoolFacts:
    """Return a pool in which all slots wait for results of other tasks, and none has ended."""
    seen = [replace(window(seconds, (AWAITED, 1.0)), kinds={}) for seconds in (10, 40)]
    return replace(BUSY, recent=seen[0], minute=seen[1])


def skewed(*, busy: int) -> PoolFacts:
    """Return a pool of two processes with no task ready: the first has four waiting, the second runs some."""
    first, second = heartbeat(), replace(heartbeat(), name="p.2@h", busy=busy, in_flight=busy)
    view = replace(BUSY.view, queues=(queue(),), running=(replace(first, in_flight=12), second))
    minute = window(60, wait_seconds=10_000.0)
    return replace(BUSY, view=view, minute=minute)


BUSY = facts((PEER, 0.9))
LOCK = Place("lock", "SQLite", "sqlite3", "shop.orders:9", "order")
COMPUTES, WAITS = Place("processor", kind="order"), Place("runnable", kind="order")
TURNS = Place("interpreter", kind="order")
AWAITED = Place("peer", RESULTS, "millpond", "shop.orders:17", "order")
FAILS = {"failed": 230, "errors": Counter({"OSError": 220, "KeyError": 10})}


def of_few_slots(*places: tuple[Place, float], slots: int = 1, **more: Any) -> PoolFacts:
    """Return a pool of so many slots on a host with four processors."""
    made = facts(*places, **more)
    view = replace(made.view, running=(heartbeat("prefork", slots=slots, host_busy=0.3, cores=4),))
    return replace(made, view=view)


def of_two(value: float, *, rate: float = 40.0) -> Elasticity:
    """Return the measurement of one slot with a second one."""
    return Elasticity(value, 0.1, 2, 1, rate, rate / 2**value, 8.0, 10.0, 1, 0.4)


def with_queues(*queues: QueueView, **more: Any) -> PoolFacts:
    return replace(BUSY, view=replace(BUSY.view, queues=queues), **more)


def named(view: QueueView, name: str) -> QueueView:
    return replace(view, depth=replace(view.depth, queue=name))
