"""The bottlenecks: how each is made, and what is true of it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness.permits import Service, service


@dataclass(frozen=True)
class Case:
    """One bottleneck: the pool, the work, what it waits for, and the states that are right.

    `grows` is what doubling the slots is expected to do; the run establishes it.
    """

    name: str
    kind: str
    right: tuple[str, ...]
    grows: bool
    fields: Mapping[str, Any] = field(default_factory=dict)
    executor: str = "threads"
    slots: int = 8
    queue: Mapping[str, Any] = field(default_factory=dict)
    around: Callable[[Path], AbstractContextManager[Any]] = lambda _folder: nullcontext()
    #: The fields that depend on what `around` gave.
    given: Callable[[Any], Mapping[str, Any]] = lambda _: {}
    #: What the verdict has to name.
    named: Callable[[Any], str] = lambda _: ""


def _service(permits: int, seconds: float) -> Callable[[Path], AbstractContextManager[Service]]:
    @contextmanager
    def around(_folder: Path) -> Iterator[Service]:
        with service(permits, seconds) as running:
            yield running

    return around


@contextmanager
def _database(folder: Path) -> Iterator[str]:
    import sqlite3

    path = folder / "shop.db"
    with sqlite3.connect(path) as made:
        made.execute("create table orders (n)")
    made.close()
    yield str(path)


def _asked(name: str, permits: int, seconds: float, *, grows: bool, **more: Any) -> Case:
    right = ("workers",) if grows else ("dependency",)
    return Case(
        name,
        "bottleneck.ask",
        right,
        grows,
        around=_service(permits, seconds),
        given=lambda it: {"url": it.url},
        named=(lambda _: "") if grows else (lambda it: it.address),
        **more,
    )


def _both(make: Callable[[str], Case]) -> list[Case]:
    return [make("threads"), make("prefork")]


def cases() -> list[Case]:
    """Return all bottlenecks, each on the executors that it can be on."""
    found: list[Case] = []
    for seconds in (0.02, 0.1, 0.4):
        found += _both(
            lambda executor, seconds=seconds: Case(  # type: ignore[misc]
                f"waits {seconds} s for something of its own",
                "bottleneck.sleep",
                ("workers",),
                True,
                fields={"seconds": seconds},
                executor=executor,
                slots=4,
            )
        )
    for permits in (1, 2, 4):
        found += _both(
            lambda executor, permits=permits: _asked(  # type: ignore[misc]
                f"a service of {permits} at a time", permits, 0.03, grows=False, executor=executor
            )
        )
    found += _both(
        lambda executor: _asked("a service for all", 64, 0.05, grows=True, executor=executor, slots=4)
    )
    found.append(
        Case("a lock of the process", "bottleneck.locked", ("lock",), False, fields={"seconds": 0.01})
    )
    found += _both(
        lambda executor: Case(
            "a lock in Redis", "bottleneck.redis_lock", ("lock", "dependency"), False,
            fields={"seconds": 0.02}, executor=executor,
        )
    )  # fmt: skip
    found += _both(
        lambda executor: Case(
            "one writer of SQLite", "bottleneck.sqlite", ("lock",), False, executor=executor,
            around=_database, given=lambda path: {"path": path, "seconds": 0.02},
        )
    )  # fmt: skip
    found += _both(
        lambda executor: Case(
            "handlers compute",
            "bottleneck.burn",
            ("processor",),
            False,
            fields={"seconds": 0.05},
            executor=executor,
        )
    )
    found += _both(
        lambda executor: Case(
            "child programs compute", "bottleneck.child", ("processor",), False,
            fields={"seconds": 0.2}, executor=executor, slots=6,
        )
    )  # fmt: skip
    found += _both(
        lambda executor: Case(
            "all runs fail",
            "bottleneck.fail",
            ("failing",),
            False,
            fields={"seconds": 0.05},
            executor=executor,
        )
    )
    found.append(Case("runs are retried", "bottleneck.retry", ("failing",), False, fields={"seconds": 0.05}))
    found += _both(
        lambda executor: Case(
            "tasks too short",
            "squares.square",
            ("batching", "processor"),
            False,
            fields={"n": 2},
            executor=executor,
            slots=2,
        )
    )
    found.append(
        Case(
            "a rate limit",
            "bottleneck.sleep",
            ("limit",),
            False,
            fields={"seconds": 0.01},
            queue={"rate": 20.0},
        )
    )
    found.append(
        Case(
            "an in-flight limit",
            "bottleneck.sleep",
            ("limit",),
            False,
            fields={"seconds": 0.1},
            queue={"in_flight": 2},
        )
    )
    return found
