"""The bottlenecks: how each is made, and the verdicts that are true of it."""

from collections.abc import Iterator
from typing import Any

from tests.scenarios.bottlenecks import surroundings as about
from tests.scenarios.bottlenecks.case import Case, on_both_executors
from tests.scenarios.bottlenecks.everyday import everyday
from tests.scenarios.bottlenecks.libraries import libraries
from tests.scenarios.bottlenecks.unforeseen import unforeseen


def cases() -> list[Case]:
    """Return all bottlenecks, each on the executors that it can be on."""
    return [
        *_elastic(),
        *_saturated(),
        *_locks(),
        *_computing(),
        *_batching(),
        *_states(),
        *_mixed(),
        *everyday(),
        *libraries(),
        *unforeseen(),
    ]


def _asking(name: str, permits: int, seconds: float, *, grows: bool, **more: Any) -> Iterator[Case]:
    named: dict[str, Any] = {} if grows else {"named": lambda it: it.address}
    yield from on_both_executors(
        name, "bottleneck.ask", ("workers",) if grows else ("dependency",), grows,
        around=about.asked(permits, seconds), given=lambda it: {"url": it.url}, **{**named, **more},
    )  # fmt: skip


def _elastic() -> Iterator[Case]:
    for seconds in (0.02, 0.1, 0.4):
        yield from on_both_executors(
            f"waits {seconds} s for something of its own", "bottleneck.sleep", ("workers",), True,
            fields={"seconds": seconds}, slots=4,
        )  # fmt: skip
    yield from _asking("a service for all", 64, 0.05, grows=True, slots=4)
    yield from on_both_executors(
        "rows of their own in PostgreSQL", "dependency.hot_row", ("workers",), True, slots=4,
        around=about.stock, given=lambda it: {"url": it.url, "row": 0, "seconds": 0.05},
    )  # fmt: skip
    yield from on_both_executors(
        "child programs that wait", "dependency.waiting_child", ("workers",), True, slots=3,
        fields={"seconds": 0.3},
    )  # fmt: skip
    yield from on_both_executors(
        "a rate limit that is not reached", "bottleneck.sleep", ("workers",), True, slots=4,
        fields={"seconds": 0.1}, queue={"rate": 1000.0},
    )  # fmt: skip


def _saturated() -> Iterator[Case]:
    for permits, seconds in ((1, 0.03), (2, 0.03), (4, 0.06), (6, 0.1)):
        yield from _asking(f"a service of {permits} at a time", permits, seconds, grows=False)
    yield from on_both_executors(
        "one hot row of PostgreSQL", "dependency.hot_row", ("dependency", "lock"), False,
        around=about.stock, given=lambda it: {"url": it.url, "row": 1, "seconds": 0.02},
        named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "two connections of PostgreSQL", "dependency.limited_query", ("dependency", "lock"), False,
        around=about.stock,
        given=lambda it: {"url": it.url.replace("postgres@", "shop@"), "seconds": 0.05},
    )  # fmt: skip
    yield Case(
        "two connections for all slots", "dependency.pooled_query", ("lock", "dependency"), False,
        around=about.stock, given=lambda it: {"url": it.url, "seconds": 0.03}, inside=True,
    )  # fmt: skip
    yield from on_both_executors(
        "a mail server of two at a time", "dependency.mail", ("dependency",), False,
        around=about.mails, given=lambda it: {"port": it.port}, named=lambda it: f"127.0.0.1:{it.port}",
    )  # fmt: skip
    yield from on_both_executors(
        "a service that became slow", "bottleneck.ask", ("dependency",), True, slots=4,
        around=about.asked(64, 0.02), given=lambda it: {"url": it.url}, named=lambda it: it.address,
        healthy_seconds=45.0, onset=about.slower(0.3),
    )  # fmt: skip


def _locks() -> Iterator[Case]:
    yield Case(
        "a lock of the process", "bottleneck.locked", ("lock",), False, fields={"seconds": 0.01}, inside=True
    )
    yield Case(
        "two permits of the process",
        "dependency.two_at_once",
        ("lock",),
        False,
        inside=True,
        fields={"seconds": 0.02},
    )
    yield from on_both_executors(
        "a lock in Redis", "bottleneck.redis_lock", ("lock", "dependency"), False, fields={"seconds": 0.02}
    )
    yield from on_both_executors(
        "one writer of SQLite", "bottleneck.sqlite", ("lock",), False,
        around=about.sqlite, given=lambda path: {"path": path, "seconds": 0.02},
    )  # fmt: skip
    yield from on_both_executors(
        "the lock of a file", "dependency.file_lock", ("lock",), False,
        around=about.sqlite, given=lambda path: {"path": f"{path}.lock", "seconds": 0.02},
    )  # fmt: skip


def _computing() -> Iterator[Case]:
    yield from on_both_executors(
        "handlers compute", "bottleneck.burn", ("processor",), False, fields={"seconds": 0.05}, computes=True
    )
    yield from on_both_executors(
        "child programs compute", "bottleneck.child", ("processor",), False,
        fields={"seconds": 0.2}, slots=6, computes=True,
    )  # fmt: skip
    yield from on_both_executors(
        "other programs fill the processors", "bottleneck.burn", ("processor",), False,
        fields={"seconds": 0.02}, around=about.crowded, computes=True,
    )  # fmt: skip
    if about.quota_is_possible():
        yield from on_both_executors(
            "a quota of half a processor", "bottleneck.burn", ("processor",), False,
            fields={"seconds": 0.02}, slots=4, onset=about.quota(0.5), of_workers=True, computes=True,
        )  # fmt: skip


def _batching() -> Iterator[Case]:
    yield from on_both_executors(
        "tasks too short", "squares.square", ("batching", "processor"), False,
        fields={"n": 2}, slots=2, computes=True,
    )  # fmt: skip
    yield from on_both_executors(
        "twenty calls for a task", "dependency.chatty", ("batching",), True, slots=4,
        around=about.asked(64, 0.005), given=lambda it: {"url": it.url, "items": 20},
        named=lambda it: it.address, batched={"at_once": True}, batched_items=1,
    )  # fmt: skip
    yield from on_both_executors(
        "calls that cost more than their items", "dependency.bulk", ("batching",), False,
        around=about.asked(2, 0.03, 0.001),
        given=lambda it: {"url": it.url, "items": [1, 2]},
        beside=("dependency.bulk", {"items": [1, 2, 3, 4, 5, 6]}, 0.3),
        named=lambda it: it.address, batched={"items": list(range(40))}, batched_items=12,
    )  # fmt: skip


def _states() -> Iterator[Case]:
    yield from on_both_executors(
        "all runs fail", "bottleneck.fail", ("failing",), False, fields={"seconds": 0.05}, computes=False
    )
    yield from on_both_executors(
        "runs are retried", "bottleneck.retry", ("failing",), False, fields={"seconds": 0.05}
    )
    yield from on_both_executors(
        "a rate limit", "bottleneck.sleep", ("limit",), False, fields={"seconds": 0.01}, queue={"rate": 20.0}
    )
    yield from on_both_executors(
        "an in-flight limit", "bottleneck.sleep", ("limit",), False,
        fields={"seconds": 0.1}, queue={"in_flight": 2},
    )  # fmt: skip
    yield from on_both_executors(
        "a frozen process", "bottleneck.sleep", ("processes missing",), True,
        fields={"seconds": 0.1}, processes=2, slots=4, onset=about.freeze_the_last, doubled=False,
    )  # fmt: skip
    for name, right, onset in (
        ("no worker runs", "no worker", about.kill_all),
        ("the queue is paused", "paused", about.pause),
        ("the pool is drained", "drained", about.drain),
    ):
        yield Case(
            name, "bottleneck.sleep", (right,), False, fields={"seconds": 0.1}, onset=onset, doubled=False,
            slots=4,
        )  # fmt: skip
    yield from on_both_executors(
        "a broker that answers late", "bottleneck.sleep", ("broker",), True,
        fields={"seconds": 0.005}, slots=4, broker_delay=0.15, pool={"prefetch": 0},
    )  # fmt: skip
    yield Case(
        "children replaced after each task", "bottleneck.sleep", ("recycling",), False, executor="prefork",
        fields={"seconds": 0.004}, slots=4, pool={"max_tasks_per_child": 1}, computes=True,
    )  # fmt: skip


def _mixed() -> Iterator[Case]:
    yield from on_both_executors(
        "bursts", "bottleneck.sleep", ("bursts",), True, fields={"seconds": 0.1}, slots=4, burst=160,
        doubled=False,
    )  # fmt: skip
    yield from on_both_executors(
        "a burst that two processes share whatever they prefetch", "bottleneck.sleep", ("keeps up",), False,
        doubled=False,
        slots=2, processes=2, fields={"seconds": 0.5}, burst=14, pool={"prefetch": 16},
    )  # fmt: skip
    yield from on_both_executors(
        "a slow kind among fast ones", "bottleneck.sleep", ("workers",), True, slots=4,
        fields={"seconds": 0.01}, beside=("bottleneck.slow_sleep", {"seconds": 0.5}, 0.05),
    )  # fmt: skip
    yield from on_both_executors(
        "most kinds fail", "bottleneck.sleep", ("failing",), False, slots=4,
        fields={"seconds": 0.02}, beside=("bottleneck.fail", {"seconds": 0.02}, 0.7),
        named=lambda _: "bottleneck.fail", doubled=False,
    )  # fmt: skip
    yield from on_both_executors(
        "a fast kind beside one that waits for a service of 1", "bottleneck.ask", ("dependency",), False,
        around=about.asked(1, 0.05), given=lambda it: {"url": it.url}, named=lambda it: it.address,
        beside=("bottleneck.sleep", {"seconds": 0.01}, 0.5),
    )  # fmt: skip
    yield from on_both_executors(
        "a change of mixture", "bottleneck.sleep", ("workers",), True, slots=4,
        fields={"seconds": 0.02}, beside=("bottleneck.slow_sleep", {"seconds": 0.3}, 0.02),
        beside_after=0.7, healthy_seconds=45.0,
    )  # fmt: skip
