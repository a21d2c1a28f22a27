"""Bottlenecks inside libraries: pools of connections, polled locks, own threads, logs."""

from collections.abc import Iterator
from importlib.util import find_spec

from tests.scenarios.bottlenecks import services
from tests.scenarios.bottlenecks import surroundings as about
from tests.scenarios.bottlenecks.case import Case, on_both_executors


def libraries() -> list[Case]:
    """Return the bottlenecks inside libraries, without those of libraries that are not installed."""
    return [*_pooled(), *_polled(), *_aside(), *_refused()]


def _pooled() -> Iterator[Case]:
    for library, module in (("sqlalchemy", "sqlalchemy"), ("psycopg", "psycopg_pool")):
        if find_spec(module):
            yield Case(
                f"two connections of {module}", "library.pooled", ("lock",), False, around=about.stock,
                given=lambda it, library=library: {"library": library, "url": it.url, "seconds": 0.03},
                inside=True, named=lambda _, name=library: name,
            )  # fmt: skip
    for library in ("requests", "httpx"):
        if find_spec(library):
            yield Case(
                f"two connections of {library}", "library.pooled", ("lock",), False,
                around=about.asked(64, 0.03), inside=True, named=lambda _, name=library: name,
                given=lambda it, library=library: {"library": library, "url": it.url},
            )  # fmt: skip
    if find_spec("sqlalchemy"):
        yield Case(
            "two connections of sqlalchemy, for each child", "library.pooled", ("workers",), True, slots=4,
            executor="prefork", around=about.stock,
            given=lambda it: {"library": "sqlalchemy", "url": it.url, "seconds": 0.05},
        )  # fmt: skip
        yield from on_both_executors(
            "a statement for each line of an order", "library.lines", ("batching",), True, slots=4,
            around=about.far_stock, given=lambda it: {"url": it.url, "lines": 20},
            named=lambda it: it.address, batched={"at_once": True}, batched_items=1,
        )  # fmt: skip


def _polled() -> Iterator[Case]:
    if find_spec("filelock"):
        yield from on_both_executors(
            "the lock of a file, polled by filelock", "library.throttled", ("lock",), False,
            around=about.sqlite, named=lambda path: f"{path}.lock",
            given=lambda path: {"by": "filelock", "path": f"{path}.lock", "seconds": 0.03},
        )  # fmt: skip
    yield Case(
        "a client that allows itself 30 calls a second", "library.throttled", ("lock",), False, inside=True,
        fields={"by": "process", "seconds": 0.033},
    )  # fmt: skip
    yield Case(
        "a client for each child that allows itself 10 calls a second", "library.throttled", ("workers",),
        True, executor="prefork", slots=4, fields={"by": "process", "seconds": 0.1},
    )  # fmt: skip
    yield Case(
        "a lock that children inherit", "library.throttled", ("lock",), False, executor="prefork",
        inside=True, fields={"by": "semaphore", "seconds": 0.02},
    )  # fmt: skip
    yield from on_both_executors(
        "turns in Redis", "library.throttled", ("dependency", "lock"), False,
        fields={"by": "redis", "seconds": 0.04},
    )  # fmt: skip
    yield from on_both_executors(
        "one hot key", "library.hot_key", ("lock",), False, fields={"seconds": 0.03},
        named=lambda _: "shop:key:0",
    )  # fmt: skip


def _aside() -> Iterator[Case]:
    yield from on_both_executors(
        "a thread of its own for each run", "library.aside", ("workers",), True, slots=4,
        fields={"how": "own threads", "seconds": 0.1},
    )  # fmt: skip
    yield Case(
        "two threads for all slots", "library.aside", ("lock", "dependency"), False, inside=True,
        fields={"how": "two threads", "seconds": 0.03},
    )  # fmt: skip
    yield Case(
        "a thread that writes for all slots", "library.aside", ("lock", "dependency"), False, inside=True,
        fields={"how": "writer", "seconds": 0.02},
    )  # fmt: skip
    yield Case(
        "processes of the handlers compute", "library.aside", ("processor",), False, inside=True,
        fields={"how": "processes", "seconds": 0.05}, computes=True,
    )  # fmt: skip
    yield Case("a slow log", "library.logs", ("lock",), False, inside=True)
    yield from on_both_executors(
        "a pipe that is read slowly", "library.logs", ("dependency",), False,
        around=services.slow_pipe, given=lambda path: {"path": path}, named=lambda path: path,
    )  # fmt: skip
    if find_spec("numpy"):
        yield from on_both_executors(
            "matrices", "library.matrix", ("processor",), False, fields={"size": 300}, computes=True
        )
    yield from on_both_executors(
        "a task that waits for another of its pool", "library.subtask", ("lock", "dependency"), False,
        fields={"seconds": 0.02}, doubled=False,
    )  # fmt: skip


def _refused() -> Iterator[Case]:
    yield from on_both_executors(
        "a mail server that answers 451", "library.greylisted", ("failing",), False,
        around=services.greylisting, given=lambda it: {"port": it.port}, named=lambda _: "greylisted",
    )  # fmt: skip
    yield from on_both_executors(
        "a service that is down", "library.refused", ("failing",), False,
        fields={"url": "http://127.0.0.1:9/", "seconds": 0.05}, named=lambda _: "refused",
    )  # fmt: skip
