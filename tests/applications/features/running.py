"""The means of a running task, and the ways to write one."""

import time
from typing import Any
from uuid import uuid4

import featured
from celery.exceptions import MaxRetriesExceededError
from featured import add, app, note, notes, notes_when

from tests.applications.features.feature import PATIENCE, feature, until

B, L, K = "Bodies", "Limits", "Base classes"


def place() -> str:
    """Return a new place for notes."""
    return uuid4().hex


def ending(result: Any, *, seconds: float = PATIENCE) -> list[Any]:
    """Return how a task ended: its state, and its result or its error's type."""
    value = result.get(seconds, propagate=False)
    return [result.state, type(value).__name__ if isinstance(value, BaseException) else value]


def hooks(end: str, number: int) -> list[str]:
    """Return which hooks of a base class were called, in order."""
    there = place()
    featured.hooked.delay(there, end).get(PATIENCE, propagate=False)
    return notes_when(there, number)


@feature(B, "`bind`: `self.request`", {"is_eager": False, "retries": 0, "called_directly": False})
def bound() -> Any:
    return featured.request.delay("is_eager", "retries", "called_directly").get(PATIENCE)


@feature(
    B,
    "`self.request.args`, `.kwargs`, `.lang`",
    {"args": ["args", "kwargs", "lang"], "kwargs": {}, "lang": "py"},
)
def request_args() -> Any:
    return featured.request.delay("args", "kwargs", "lang").get(PATIENCE)


@feature(B, "`self.request.hostname` names the worker", True)
def hostname() -> Any:
    return (
        featured.request.delay("hostname").get(PATIENCE)["hostname"]
        in app.control.inspect(timeout=PATIENCE, limit=1).ping()
    )


@feature(B, "`self.request.eta`", True)
def eta() -> Any:
    return "T" in featured.request.apply_async(("eta",), countdown=0.2).get(PATIENCE)["eta"]


feature(B, "`self.request.expires`", True)(
    lambda: "T" in featured.request.apply_async(("expires",), expires=60).get(PATIENCE)["expires"]
)
feature(B, "`self.request.delivery_info`", ["", "celery", 0, False])(
    lambda: featured.route.delay().get(PATIENCE)
)
feature(B, "`self.request.timelimit`", [9, 5])(
    lambda: featured.request.apply_async(("timelimit",), time_limit=9, soft_time_limit=5).get(PATIENCE)[
        "timelimit"
    ]
)
feature(B, "`self.request.origin`, `.ignore_result`", True)(
    lambda: "@" in featured.request.delay("origin").get(PATIENCE)["origin"]
)


@feature(B, "`parent_id` and `root_id` of a task sent by a task", True)
def lineage() -> Any:
    parent, child = featured.starts_another.delay().get(PATIENCE)
    return app.AsyncResult(child).get(PATIENCE) == {"parent_id": parent, "root_id": parent}


feature(B, "a task waits for another (`allow_join_result`)", 3)(
    lambda: featured.waits_for_another.delay().get(PATIENCE)
)
feature(B, "`self.retry`", ["SUCCESS", 2])(lambda: ending(featured.retried.delay(2)))
feature(B, "`self.retry` with other arguments", ["SUCCESS", 2])(
    lambda: ending(featured.retried_with.delay(1))
)
feature(B, "`max_retries` reached: its error", ["FAILURE", "ValueError"])(
    lambda: ending(featured.exhausted.delay())
)


@feature(B, "`max_retries` reached: `MaxRetriesExceededError`", True)
def exhausted() -> Any:
    error = featured.exhausted.delay(plain=True).get(PATIENCE, propagate=False)
    return isinstance(error, MaxRetriesExceededError)


feature(B, "`autoretry_for`, `retry_backoff`", ["SUCCESS", 2])(lambda: ending(featured.auto.delay(2)))
feature(B, "`autoretry_for` gives up", ["FAILURE", "OSError"])(lambda: ending(featured.auto.delay(9)))


@feature(B, "`Reject(requeue=False)`", [["run"], "FAILURE"])
def reject() -> Any:
    there = place()
    result = featured.rejected.delay(there, False)
    seen = notes_when(there, 1)
    add.delay(1, 1).get(PATIENCE)
    until(lambda: result.state == "FAILURE")
    return [notes(there) and seen, result.state]


@feature(B, "`Reject(requeue=True)`", "second time")
def requeue() -> Any:
    return featured.rejected.delay(place(), True).get(PATIENCE)


@feature(B, "`Ignore`", [["run"], "PENDING"])
def ignore() -> Any:
    there = place()
    result = featured.ignored.delay(there)
    seen = notes_when(there, 1)
    add.delay(1, 1).get(PATIENCE)
    return [seen, result.state]


feature(B, "`self.replace`", 107)(lambda: featured.replaced.delay(7).get(PATIENCE))
feature(B, "`self.replace` by a chord", 6)(lambda: featured.replaced_by_chord.delay(3).get(PATIENCE))


@feature(B, "`update_state`", ["HALF", {"done": 1}, "whole"])
def update_state() -> Any:
    there = place()
    result = featured.progress.delay(there)
    seen = _state(result, "HALF")
    note(there, "go")
    return [seen, info_of(result), result.get(PATIENCE)]


_infos: dict[str, Any] = {}


def info_of(result: Any) -> Any:
    """Return the meta data seen with the last state."""
    return _infos[result.id]


def _state(result: Any, wanted: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while result.state != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    _infos[result.id] = result.info
    return str(result.state)


@feature(B, "`track_started`", ["STARTED", "done"])
def track_started() -> Any:
    there = place()
    result = featured.started.delay(there)
    seen = _state(result, "STARTED")
    note(there, "go")
    return [seen, result.get(PATIENCE)]


feature(B, "`throws`", ["FAILURE", "KeyError"])(lambda: ending(featured.expected.delay()))
feature(B, "an error that cannot be pickled", True)(
    lambda: "1 and 2" in str(featured.unpicklable.delay().get(PATIENCE, propagate=False))
)
feature(B, "a body that raises `SystemExit`", True)(
    lambda: featured.exits.delay() is not None and add.delay(1, 1).get(PATIENCE) == 2
)
feature(B, "`acks_late=True`", 4)(lambda: featured.late.delay(4).get(PATIENCE))
feature(B, "`acks_late=False`", 4)(lambda: featured.early.delay(4).get(PATIENCE))


@feature(B, "a child is killed, `acks_late=False`", ["FAILURE", "WorkerLostError", 1])
def killed() -> Any:
    there = place()
    found = ending(featured.dies.delay(there))
    return [*found, len(notes(there))]


@feature(B, "a child is killed, `acks_late` is not set", ["FAILURE", "WorkerLostError", 1])
def killed_by_default() -> Any:
    there = place()
    found = ending(featured.dies_by_default.delay(there))
    return [*found, len(notes(there))]


@feature(B, "a child is killed, `task_reject_on_worker_lost`", ["second time", 2])
def killed_late() -> Any:
    there = place()
    return [featured.dies_once.delay(there).get(PATIENCE), len(notes(there))]


@feature(B, "`celery.contrib.abortable`", ["aborted"])
def abort() -> Any:
    there = place()
    result = featured.abortable.delay(there)
    notes_when(there, 1)
    result.abort()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = app.backend.get_task_meta(result.id)
        if found["result"] == "aborted":
            return [found["result"]]
        time.sleep(0.05)
    return [found["status"], found["result"]]


feature(L, "`time_limit` of a task, on prefork", ["FAILURE", "TimeLimitExceeded"])(
    lambda: ending(featured.limited.delay())
)
feature(L, "`soft_time_limit` of a task, on prefork", ["SUCCESS", "cleaned up"])(
    lambda: ending(featured.limited_softly.delay())
)
feature(L, "`time_limit` of a call, on prefork", ["FAILURE", "TimeLimitExceeded"])(
    lambda: ending(featured.sleep.apply_async((60,), time_limit=1))
)
feature(L, "`soft_time_limit` of a call, on prefork", ["FAILURE", "SoftTimeLimitExceeded"])(
    lambda: ending(featured.sleep.apply_async((60,), soft_time_limit=1))
)


@feature(L, "`rate_limit` of a task", True)
def rate_limit() -> Any:
    there = place()
    for _ in range(8):  # 3.5 s, of which a busy machine may hide some
        featured.limited_rate.delay(there)
    times = [float(each) for each in notes_when(there, 8)]
    return len(times) == 8 and max(times) - min(times) >= 1.2


feature(
    K,
    "`before_start`, `on_success`, `after_return`, `__call__`",
    ["before_start", "call", "on_success fine", "after_return SUCCESS"],
)(lambda: hooks("succeed", 4))
feature(K, "`on_failure`", ["before_start", "call", "on_failure hooked", "after_return FAILURE"])(
    lambda: hooks("fail", 4)
)
feature(K, "`on_retry`", True)(lambda: "on_retry hooked" in hooks("retry", 7))


@feature(K, "a `Request` class of one's own", [["FAILURE", "ValueError"], "own_request on_failure"])
def own_request() -> Any:
    found = ending(featured.own_request.delay())
    return [found, notes_when("own request", 1)[0]]


feature(K, "`pydantic=True`", {"item": "LAMP", "number": 2})(
    lambda: featured.typed.delay({"item": "lamp", "number": 1}).get(PATIENCE)
)
feature(K, "`pydantic=True` refuses", ["FAILURE", "ValidationError"])(
    lambda: _name(featured.typed.delay({"item": "lamp"}))
)


def _name(result: Any) -> Any:
    value = result.get(PATIENCE, propagate=False)
    return [result.state, "ValidationError" if "ValidationError" in repr(value) else repr(value)]


feature(K, "a task written as a class (`register_task`)", 8)(lambda: featured.by_class.delay(4).get(PATIENCE))
feature(K, "`shared_task`", 12)(lambda: app.send_task("shared", (4,)).get(PATIENCE))
feature(K, "`task_annotations`", 7)(lambda: app.tasks["annotated"].delay().get(PATIENCE))
