"""Send options, serializers and routes."""

import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from celery.exceptions import TaskRevokedError
from featured import (
    add,
    app,
    broadcast,
    echo,
    fail,
    held,
    note,
    noted,
    notes,
    notes_when,
    on_error,
    request,
    route,
    without_result,
)
from kombu import Exchange

from tests.applications.features.feature import PATIENCE, feature, until

S, Z, R = "Sending", "Serializers", "Routes"


def place() -> str:
    """Return a new place for notes."""
    return uuid4().hex


def occupied(there: str, number: int) -> list[Any]:
    """Occupy both slots, and have as many tasks as are left wait behind, until `free`."""
    busy = [held.delay(there) for _ in range(number)]
    notes_when(there, 2)
    return busy


def free(there: str, busy: list[Any]) -> None:
    """End the tasks of `occupied`."""
    note(f"{there} go", "go")
    for each in busy:
        each.get(PATIENCE)


def after(**options: Any) -> bool:
    """True if a task with these options ran, and not before its time of 0.7 s."""
    began = time.monotonic()
    assert add.apply_async((1, 1), **options).get(PATIENCE) == 2
    return time.monotonic() - began >= 0.65


feature(S, "`delay`", 5)(lambda: add.delay(2, 3).get(PATIENCE))
feature(S, "`apply_async(args, kwargs)`", [[1], {"a": 2}])(
    lambda: echo.apply_async((1,), {"a": 2}).get(PATIENCE)
)
feature(S, "`send_task` by name", 5)(lambda: app.send_task("add", (2, 3)).get(PATIENCE))
feature(S, "`countdown`", True)(lambda: after(countdown=0.7))
feature(S, "`eta`", True)(lambda: after(eta=datetime.now(UTC) + timedelta(seconds=0.7)))
feature(S, "`eta` in another time zone", True)(
    lambda: after(eta=datetime.now(timezone(timedelta(hours=5))) + timedelta(seconds=0.7))
)
feature(S, "`expires` that is not over", 2)(lambda: add.apply_async((1, 1), expires=60).get(PATIENCE))


@feature(S, "`expires` that is over: REVOKED", ["TaskRevokedError", "REVOKED"])
def expired() -> Any:
    result = add.apply_async((1, 1), expires=datetime.now(UTC) - timedelta(seconds=5))
    try:
        result.get(PATIENCE)
    except TaskRevokedError as error:
        return [type(error).__name__, result.state]
    return "ran"


feature(S, "`task_id`", "my-id")(lambda: request.apply_async(("id",), task_id="my-id").get(PATIENCE)["id"])
feature(S, "`shadow`", "another name")(
    lambda: request.apply_async(("shadow",), shadow="another name").get(PATIENCE)["shadow"]
)
feature(S, "`headers` of one's own", "seven")(
    lambda: (request.apply_async(("tenant", "headers"), headers={"tenant": "seven"}).get(PATIENCE))["tenant"]
)
feature(S, "`argsrepr`, `kwargsrepr`", {"argsrepr": "(hidden)", "kwargsrepr": "{}"})(
    lambda: request.apply_async(("argsrepr", "kwargsrepr"), argsrepr="(hidden)", kwargsrepr="{}").get(
        PATIENCE
    )
)
feature(S, "`correlation_id`, `reply_to`", True)(
    lambda: (
        (found := request.apply_async(("id", "correlation_id"), task_id="both").get(PATIENCE))["id"]
        == found["correlation_id"]
    )
)


@feature(S, "`ignore_result` for one call", [["run"], None])
def ignore_result() -> Any:
    there = place()
    result = noted.apply_async((there, "run"), ignore_result=True)
    seen = notes_when(there, 1)
    time.sleep(0.2)
    return [seen, app.backend.get(app.backend.get_key_for_task(result.id))]


@feature(S, "`link`", ["3"])
def link() -> Any:
    there = place()
    add.apply_async((1, 2), link=noted.si(there, 3)).get(PATIENCE)
    return notes_when(there, 1)


@feature(S, "`link` gets the result", 13)
def link_result() -> Any:
    result = add.apply_async((1, 2), link=add.s(10))
    result.get(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while not result.children and time.monotonic() < deadline:
        time.sleep(0.05)
    return result.children[0].get(PATIENCE)


@feature(S, "`link_error`", True)
def link_error() -> Any:
    text = place()
    fail.apply_async((text,), link_error=on_error.s()).get(PATIENCE, propagate=False)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not any(text in each for each in notes("on_error")):
        time.sleep(0.05)
    return any(text in each for each in notes("on_error"))


@feature(S, "`retry_policy`", 2)
def retry_policy() -> Any:
    return add.apply_async((1, 1), retry=True, retry_policy={"max_retries": 2, "interval_start": 0}).get(
        PATIENCE
    )


@feature(S, "a producer of one's own", 2)
def producer() -> Any:
    with app.producer_pool.acquire(block=True) as mine:
        return add.apply_async((1, 1), producer=mine).get(PATIENCE)


@feature(S, "a connection of one's own", 2)
def connection() -> Any:
    with app.connection_for_write() as mine:
        return add.apply_async((1, 1), connection=mine).get(PATIENCE)


feature(S, "`priority` is seen", 6)(lambda: route.apply_async(priority=6).get(PATIENCE)[2])


@feature(S, "`priority` is obeyed", True)
def priority() -> Any:
    there = place()
    busy = occupied(there, 4)
    for what in (9, 9, 9, 0, 0, 0):
        noted.apply_async((f"{there} ran", what), priority=what)
    free(there, busy)
    # The third of them and the first of the others run at the same time, in two slots.
    return notes_when(f"{there} ran", 6)[:4].count("0") == 3


@feature(S, "a megabyte of arguments", 1_000_000)
def large() -> Any:
    return len(echo.delay("x" * 1_000_000).get(PATIENCE)[0][0])


feature(S, "any Unicode", "žluťoučký 🐎 \x00")(lambda: echo.delay("žluťoučký 🐎 \x00").get(PATIENCE)[0][0])
feature(S, "`apply`: here and now", 3)(lambda: add.apply((1, 2)).get())


@feature(S, "arguments are checked as it is sent", "TypeError")
def checked() -> Any:
    try:
        add.delay(1)
    except TypeError as error:
        return type(error).__name__


@feature(S, "`task_always_eager`", ["3", True])
def eager() -> Any:
    app.conf.task_always_eager = True
    try:
        result = add.delay(1, 2)
        return [str(result.get()), type(result).__name__ == "EagerResult"]
    finally:
        app.conf.task_always_eager = False


for name in ("json", "pickle", "yaml"):
    feature(Z, f"`serializer={name!r}`", [[1], {"b": 2}])(
        lambda name=name: echo.apply_async((1,), {"b": 2}, serializer=name).get(PATIENCE)
    )
for name in ("gzip", "bzip2", "lzma"):
    feature(Z, f"`compression={name!r}`", 50_000)(
        lambda name=name: len(echo.apply_async(("y" * 50_000,), compression=name).get(PATIENCE)[0][0])
    )


@feature(Z, "dates, decimals and UUIDs in JSON", ["datetime", "Decimal", "UUID", "bytes"])
def rich() -> Any:
    sent = [datetime.now(UTC), Decimal("1.5"), UUID(int=5), b"bytes"]
    return [type(each).__name__ for each in echo.delay(*sent).get(PATIENCE)[0]]


@feature(Z, "`accept_content` refuses", "PENDING")
def refused() -> Any:
    from kombu.serialization import register

    register("secret", repr, eval, content_type="application/x-secret", content_encoding="utf-8")
    there = place()
    result = noted.apply_async((there, "run"), serializer="secret")
    add.delay(1, 1).get(PATIENCE)
    until(lambda: result.state != "PENDING", 30)
    return result.state if not notes(there) else "ran"


feature(Z, "a task's own result, pickled", True)(
    lambda: isinstance(echo.apply_async(serializer="pickle").get(PATIENCE), list)
)

feature(R, "`queue`", ["", "second"])(lambda: route.apply_async(queue="second").get(PATIENCE)[:2])
feature(R, "a topic exchange and its `routing_key`", ["media", "media.video"])(
    lambda: route.apply_async(queue="media", routing_key="media.video").get(PATIENCE)[:2]
)
feature(R, "`task_routes`", "second")(lambda: app.tasks["routed"].delay().get(PATIENCE))
feature(R, "the default queue", ["", "celery"])(lambda: route.delay().get(PATIENCE)[:2])


@feature(R, "a `Broadcast` queue", ["heard"])
def broadcasts() -> Any:
    there = place()
    broadcast.apply_async((there,), exchange=Exchange("everybody", type="fanout"))
    return notes_when(there, 1)


@feature(R, "`ignore_result` of a task", [["run"], None])
def of_a_task() -> Any:
    there = place()
    result = without_result.delay(there)
    seen = notes_when(there, 1)
    time.sleep(0.2)
    return [seen, app.backend.get(app.backend.get_key_for_task(result.id))]
