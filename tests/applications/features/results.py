"""Results: states, waiting, and storage."""

import time
from typing import Any
from uuid import uuid4

import featured
from celery import chain, group
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import GroupResult, ResultSet
from featured import add, app, fail, note

from tests.applications.features.feature import PATIENCE, feature, until

R = "Results"


@feature(R, "`state`, `ready`, `successful`, `result`", ["SUCCESS", True, True, 3])
def success() -> Any:
    result = add.delay(1, 2)
    result.get(PATIENCE)
    return [result.state, result.ready(), result.successful(), result.result]


@feature(R, "`.get` raises the task's error", ["ValueError", "on purpose", True])
def error() -> Any:
    result = fail.delay()
    try:
        result.get(PATIENCE)
    except ValueError as found:
        return [type(found).__name__, str(found), "ValueError: on purpose" in result.traceback]


@feature(R, "`.get(propagate=False)`", ["ValueError", True])
def unraised() -> Any:
    result = fail.delay()
    return [type(result.get(PATIENCE, propagate=False)).__name__, result.failed()]


@feature(R, "`.get(timeout)`: `TimeoutError`", True)
def timeout() -> Any:
    there = uuid4().hex
    result = featured.started.delay(there)
    try:
        result.get(0.5)
    except CeleryTimeoutError:
        return True
    finally:
        note(there, "go")


@feature(R, "`on_message` of `.get`", ["HALF", "SUCCESS"])
def on_message() -> Any:
    there, seen = uuid4().hex, []

    def heard(message: dict[str, Any]) -> None:
        seen.append(message["status"])
        note(there, "go")

    featured.progress.delay(there).get(PATIENCE, on_message=heard)
    return sorted(set(seen))


@feature(R, "`forget`", "PENDING")
def forget() -> Any:
    result = add.delay(1, 2)
    result.get(PATIENCE)
    result.forget()
    return app.AsyncResult(result.id).state


@feature(R, "`children`, `collect`", [True, 4])
def children() -> Any:
    result = add.apply_async((1, 1), link=add.s(2))
    result.get(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while not result.children and time.monotonic() < deadline:
        time.sleep(0.05)
    values = [value for _, value in result.collect(timeout=PATIENCE)]
    return [len(result.children) == 1, values[-1]]


@feature(R, "`parent` of a chain's result", [2, 5])
def parents() -> Any:
    result = chain(add.s(1, 1), add.s(3)).apply_async()
    return [result.parent.get(PATIENCE), result.get(PATIENCE)]


@feature(R, "`result_extended`: name, args, worker, queue", ["add", [1, 2], True, "celery", True])
def extended() -> Any:
    result = add.delay(1, 2)
    result.get(PATIENCE)
    return [result.name, list(result.args), "@" in result.worker, result.queue, result.date_done is not None]


@feature(R, "`result_expires`", True)
def expires() -> Any:
    result = add.delay(1, 2)
    result.get(PATIENCE)
    left = app.backend.client.ttl(app.backend.get_key_for_task(result.id))
    return 86_000 < left <= 86_400


@feature(R, "`GroupResult`: `save`, `restore`, `join`", [2, 4])
def saved() -> Any:
    result = group(add.s(1, 1), add.s(2, 2)).apply_async()
    result.save()
    return GroupResult.restore(result.id, app=app).join(timeout=PATIENCE)


@feature(R, "`completed_count`, `successful`, `failed`", [2, False, True])
def counts() -> Any:
    result = group(add.s(1, 1), fail.s(), add.s(2, 2)).apply_async()
    result.get(PATIENCE, propagate=False)
    return [result.completed_count(), result.successful(), result.failed()]


@feature(R, "`ResultSet`", [2, 4])
def result_set() -> Any:
    return ResultSet([add.delay(1, 1), add.delay(2, 2)], app=app).join(timeout=PATIENCE)


@feature(R, "iterating over results as they come", [2, 4])
def native() -> Any:
    results = group(add.s(1, 1), add.s(2, 2)).apply_async()
    return sorted(meta["result"] for _, meta in results.iter_native(timeout=PATIENCE))


@feature(R, "`join` with a callback", [2, 4])
def callback() -> Any:
    seen: list[Any] = []
    group(add.s(1, 1), add.s(2, 2)).apply_async().join(
        timeout=PATIENCE, callback=lambda _, value: seen.append(value)
    )
    return seen


@feature(R, "`retries` are counted", 2)
def retries() -> Any:
    result = featured.retried.delay(2)
    result.get(PATIENCE)
    return result.retries


@feature(R, "RETRY is a state", True)
def retry_state() -> Any:
    result = app.send_task("retried", (1, 600))
    return until(lambda: result.state == "RETRY")


@feature(R, "a revoked task: `TaskRevokedError`", ["TaskRevokedError", "REVOKED"])
def revoked() -> Any:
    app.control.revoke(id := uuid4().hex, reply=True, timeout=PATIENCE, limit=1)
    result = add.apply_async((1, 1), task_id=id)
    try:
        result.get(PATIENCE)
    except TaskRevokedError as error:
        return [type(error).__name__, result.state]
    return "ran"


@feature(R, "a revoked task of a chord: `ChordError`", "ChordError")
def revoked_chord() -> Any:
    from celery import chord

    revoked = add.s(1, 1)
    revoked.freeze()
    app.control.revoke(revoked.id, reply=True, timeout=PATIENCE, limit=1)
    result = chord([revoked, add.s(2, 2)], featured.total.s()).apply_async()
    return type(result.get(PATIENCE, propagate=False)).__name__


@feature(R, "`as_tuple`, `result_from_tuple`", 3)
def tuples() -> Any:
    from celery.result import result_from_tuple

    return result_from_tuple(add.delay(1, 2).as_tuple(), app=app).get(PATIENCE)
