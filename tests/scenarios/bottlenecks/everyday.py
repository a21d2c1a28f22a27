"""Bottlenecks of everyday handlers, beside those of `cases.py`."""

from collections.abc import Iterator

from tests.scenarios.bottlenecks import services
from tests.scenarios.bottlenecks import surroundings as about
from tests.scenarios.bottlenecks.case import Case, on_both_executors


def everyday() -> list[Case]:
    """Return the everyday bottlenecks, each on its possible executors."""
    return [*_asked(), *_held(), *_computing(), *_calm(), *_one_slot()]


def _asked() -> Iterator[Case]:
    yield from on_both_executors(
        "a service that answers 429", "everyday.limited", ("dependency",), False,
        around=services.rate_limited, given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "429 and a retry of the task", "everyday.limited", ("failing",), False,
        around=services.rate_limited, given=lambda it: {"url": it.url, "retries": True},
    )  # fmt: skip
    yield from on_both_executors(
        "a service that thrashes", "bottleneck.ask", ("dependency",), False,
        around=services.thrashing, given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "a DNS server that is slow", "everyday.resolve", ("dependency",), False,
        around=services.names, given=lambda it: {"port": it.port, "connects": True},
        named=lambda it: it.address,
    )  # fmt: skip
    yield Case(
        "a DNS server asked without a connection", "everyday.resolve", ("dependency",), False,
        around=services.names, given=lambda it: {"port": it.port},
    )  # fmt: skip
    yield from on_both_executors(
        "asyncio in a handler", "everyday.gathers", ("dependency",), False,
        around=about.asked(2, 0.05), given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "asyncio in a handler, a service for all", "everyday.gathers", ("workers",), True, slots=4,
        around=about.asked(64, 0.2), given=lambda it: {"url": it.url},
    )  # fmt: skip


def _held() -> Iterator[Case]:
    yield from on_both_executors(
        "an advisory lock of PostgreSQL", "everyday.advisory", ("dependency", "lock"), False,
        around=about.stock, given=lambda it: {"url": it.url, "seconds": 0.02},
        named=lambda it: it.address,
    )  # fmt: skip
    yield Case(  # threads of one process do not exclude each other by such a lock
        "a record lock of a file", "everyday.record_lock", ("lock",), False, executor="prefork",
        around=about.sqlite, given=lambda path: {"path": f"{path}.lock", "seconds": 0.02},
    )  # fmt: skip
    yield from on_both_executors(
        "a disk that is full", "everyday.sync", ("failing",), False,
        around=services.small_disk, given=lambda folder: {"folder": folder, "times": 1000},
    )  # fmt: skip


def _computing() -> Iterator[Case]:
    yield from on_both_executors(
        "C code that holds the interpreter", "everyday.holds_interpreter", ("processor",), False,
        fields={"rounds": 5}, computes=True,
    )  # fmt: skip
    yield from on_both_executors(
        "C code that releases the interpreter", "everyday.releases_interpreter", ("processor",), False,
        fields={"rounds": 100_000}, computes=True,
    )  # fmt: skip
    yield from on_both_executors(
        "programs that end at once", "everyday.short_program", ("processor",), False, computes=True,
    )  # fmt: skip


def _calm() -> Iterator[Case]:
    yield from on_both_executors(
        "a producer slower than the pool", "bottleneck.sleep", ("keeps up",), False, doubled=False,
        fields={"seconds": 0.05}, slots=8, steady=True,
    )  # fmt: skip


def _one_slot() -> Iterator[Case]:
    yield from on_both_executors(
        "one slot that waits for something of its own", "bottleneck.sleep", ("workers",), True, slots=1,
        fields={"seconds": 0.1}, second_slot=True,
    )  # fmt: skip
    yield from on_both_executors(
        "one slot that waits for a service of 1", "bottleneck.ask", ("dependency",), False, slots=1,
        around=about.asked(1, 0.1), given=lambda it: {"url": it.url}, named=lambda it: it.address,
        second_slot=True,
    )  # fmt: skip
    yield from on_both_executors(
        "one slot that waits for a service for all", "bottleneck.ask", ("workers",), True, slots=1,
        around=about.asked(64, 0.1), given=lambda it: {"url": it.url}, second_slot=True,
    )  # fmt: skip
    yield from on_both_executors(
        "one slot with a lock of a file", "everyday.record_lock", ("dependency", "lock"), False, slots=1,
        around=about.sqlite, given=lambda path: {"path": f"{path}.lock", "seconds": 0.05}, second_slot=True,
    )  # fmt: skip
    yield from on_both_executors(
        "one slot, not measured", "bottleneck.ask", ("unclear",), True, slots=1, doubled=False,
        around=about.asked(64, 0.1), given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "runs of half a minute", "bottleneck.ask", ("unclear",), True, slots=4, doubled=False,
        around=about.asked(64, 30), given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip
