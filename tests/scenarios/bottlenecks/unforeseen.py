"""Bottlenecks that the rules were not written for: the judge's own."""

from collections.abc import Iterator
from importlib.util import find_spec

from tests.scenarios.bottlenecks import services, slow_services
from tests.scenarios.bottlenecks import surroundings as about
from tests.scenarios.bottlenecks.case import Case, on_both_executors


def unforeseen() -> list[Case]:
    """Return the bottlenecks, each on its possible executors."""
    return [*_services(), *_redis(), *_databases(), *_disk(), *_computing(), *_shapes(), *_large()]


def _services() -> Iterator[Case]:
    yield from on_both_executors(
        "a token bucket that lets wait", "bottleneck.ask", ("dependency",), False,
        around=slow_services.token_bucket, given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "a slow service that fails half", "unforeseen.ask_again", ("dependency",), False,
        around=slow_services.half_failing, given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "a quick service that fails half", "unforeseen.ask_again", ("workers",), True, slots=4,
        around=slow_services.failing_for_all, given=lambda it: {"url": it.url},
    )  # fmt: skip
    yield from on_both_executors(
        "uploads by a narrow line", "unforeseen.upload", ("dependency",), False,
        around=slow_services.narrow_line, given=lambda it: {"url": it.url, "size": 200_000},
        named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "two services, the second saturated", "unforeseen.ask_two", ("dependency",), False,
        around=slow_services.two_services, given=lambda it: {"first": it[0].url, "second": it[1].url},
        named=lambda it: it[1].address,
    )  # fmt: skip
    yield from on_both_executors(
        "two sorts of tasks, the service of one saturated", "unforeseen.ask_two", ("dependency",), False,
        around=slow_services.two_services,
        given=lambda it: {"first": it[0].url, "second": it[1].url, "only": "first"},
        beside=("unforeseen.ask_two", {"only": "second"}, 0.5), named=lambda it: it[1].address,
    )  # fmt: skip
    if find_spec("trustme"):
        yield from on_both_executors(
            "slow handshakes of TLS", "unforeseen.ask_safely", ("dependency",), False,
            around=slow_services.slow_handshakes, given=lambda it: {"port": it.port},
            named=lambda it: it.address,
        )  # fmt: skip
    yield from on_both_executors(
        "many requests at once from one loop", "unforeseen.ask_at_once", ("dependency",), False, slots=4,
        around=about.asked(4, 0.05), given=lambda it: {"url": it.url, "times": 5},
        named=lambda it: it.address,
    )  # fmt: skip
    if find_spec("grpc"):
        yield Case(
            "a gRPC server of two at a time", "unforeseen.ask_by_grpc", ("dependency",), False,
            around=slow_services.grpc_server, given=lambda it: {"port": it.port},
            named=lambda _: "grpc",
        )  # fmt: skip
    yield from on_both_executors(
        "a service for twelve, four slots", "bottleneck.ask", ("workers",), True, slots=4,
        around=about.asked(12, 0.1), given=lambda it: {"url": it.url},
    )  # fmt: skip
    yield from on_both_executors(
        "a service of one, two slots", "bottleneck.ask", ("dependency",), False, slots=2,
        around=about.asked(1, 0.05), given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "a service of seven, eight slots", "bottleneck.ask", ("dependency",), False,
        around=about.asked(7, 0.05), given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip
    yield Case(
        "a service of four, thirty-two slots", "bottleneck.ask", ("dependency",), False, slots=32,
        around=about.asked(4, 0.05), given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip


def _redis() -> Iterator[Case]:
    for how in ("counter", "list"):
        yield from on_both_executors(
            f"a semaphore in Redis, by a {how}", "unforeseen.redis_semaphore", ("dependency", "lock"), False,
            fields={"how": how, "seconds": 0.05, "permits": 2},
        )  # fmt: skip
    yield from on_both_executors(
        "keys of a far Redis, one by one", "unforeseen.redis_keys", ("batching",), True, slots=4,
        around=slow_services.far_redis, given=lambda url: {"url": url, "keys": 30},
        batched={"at_once": True}, batched_items=1,
    )  # fmt: skip
    yield Case(
        "two connections of redis", "unforeseen.redis_pool", ("lock",), False, fields={"seconds": 0.1},
        inside=True, named=lambda _: "redis",
    )  # fmt: skip


def _databases() -> Iterator[Case]:
    yield from on_both_executors(
        "a lock of a table", "unforeseen.table_lock", ("dependency", "lock"), False, around=about.stock,
        given=lambda it: {"url": it.url, "seconds": 0.02}, named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "deadlocks of rows", "unforeseen.deadlocks", ("dependency", "lock"), False, around=about.stock,
        given=lambda it: {"url": it.url, "seconds": 0.01}, named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "rows that are synced, one database", "unforeseen.sync_rows", ("lock", "dependency"), False,
        around=about.sqlite, given=lambda path: {"path": path, "own": False},
    )  # fmt: skip


def _disk() -> Iterator[Case]:
    yield from on_both_executors(
        "files that are synced", "everyday.sync", ("dependency", "processor"), False,
        around=services.disk, given=lambda folder: {"folder": folder, "times": 20},
    )  # fmt: skip
    yield from on_both_executors(
        "rows that are synced, a database for each slot", "unforeseen.sync_rows",
        ("dependency", "processor"), False,
        around=about.sqlite, given=lambda path: {"path": path, "own": True},
    )  # fmt: skip
    yield Case(
        "a log to a slow pipe", "unforeseen.log_line", ("lock", "dependency"), False,
        around=services.slow_pipe, given=lambda path: {"path": path}, inside=True,
    )  # fmt: skip


def _computing() -> Iterator[Case]:
    for how in ("zlib", "hash", "picture", "sqlite", "garbage"):
        yield from on_both_executors(
            f"computing: {how}", "unforeseen.computes", ("processor",), False, fields={"how": how},
            computes=True, inside=True,
        )  # fmt: skip
    for how in ("own thread", "thread of a loop"):
        yield Case(
            f"computing: {how}", "unforeseen.computes", ("processor",), False, fields={"how": how},
            computes=True, inside=True,
        )  # fmt: skip
    for how in ("shell", "system", "asyncio"):
        yield from on_both_executors(
            f"a program by {how} computes", "unforeseen.shell", ("processor",), False, computes=True, slots=6,
            fields={"how": how, "seconds": 0.2},
        )  # fmt: skip
    yield Case(
        "a process of multiprocessing computes", "unforeseen.shell", ("processor",), False, computes=True,
        slots=6, fields={"how": "multiprocessing", "seconds": 0.2},
    )  # fmt: skip


def _shapes() -> Iterator[Case]:
    yield Case(
        "a cache that is filled once", "unforeseen.cached", ("workers",), True, slots=4,
        fields={"fill_seconds": 8, "seconds": 0.1},
    )  # fmt: skip
    yield from on_both_executors(
        "waits of very different lengths", "unforeseen.uneven", ("workers",), True, slots=4,
        fields={"seconds": 0.1},
    )  # fmt: skip
    yield from on_both_executors(
        "a service of two, answers of very different lengths", "unforeseen.uneven", ("dependency",), False,
        around=about.asked(2, 0.0, 0.001), given=lambda it: {"url": it.url, "seconds": 0.1},
        named=lambda it: it.address,
    )  # fmt: skip
    yield from on_both_executors(
        "waits 1.5 s for something of its own", "bottleneck.sleep", ("workers",), True,
        fields={"seconds": 1.5}, slots=8,
    )  # fmt: skip
    yield from on_both_executors(
        "a service of two, 1.5 s each", "bottleneck.ask", ("dependency",), False,
        around=about.asked(2, 1.5), given=lambda it: {"url": it.url}, named=lambda it: it.address,
    )  # fmt: skip


def _large() -> Iterator[Case]:
    yield from on_both_executors(
        "large arguments", "everyday.large", ("processor", "broker"), False, slots=4, backlog=300,
        computes=True, fields={"seconds": 0.005, "text": "x" * 300_000},
    )  # fmt: skip
    yield from on_both_executors(
        "large results", "unforeseen.large_result", ("processor", "batching"), False, slots=4,
        fields={"size": 1_000_000}, computes=True,
    )  # fmt: skip
