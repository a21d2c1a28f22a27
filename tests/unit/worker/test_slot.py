"""The outcome of a slot that runs a handler, or a plain Celery task by Celery's tracer."""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, Task, signals
from celery.app import trace
from celery.app.task import Context as CeleryContext
from celery.exceptions import WorkerShutdown

from millpond.broker.delivery import Delivery
from millpond.broker.message import Message
from millpond.broker.outcomes import DeadLetter, Redeliver, Succeeded
from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.handlers import Handler
from millpond.tasks.middleware import Hooks, Middleware
from millpond.tasks.pools import PoolsTable
from millpond.worker.celery.handler_task import register_handler
from millpond.worker.celery.slot import run_delivery


class Greet(Contract, kind="slot.greet"):
    """A kind whose handler returns a greeting."""

    name: str


@pytest.fixture
def app() -> Iterator[Any]:
    with Celery("slot", set_as_current=False) as app:
        app.hooks = (Hooks(), Hooks())
        before = trace._localized[:]
        trace.setup_worker_optimizations(app, "here")
        yield app
        trace.reset_worker_optimizations(app)
        trace._localized[:] = before


def make_ready(app: Celery) -> None:
    app.finalize()
    for name, task in app.tasks.items():
        task.__trace__ = trace.build_tracer(name, task, app.loader, "here", app=app)


def delivered(
    kind: str, kwargs: dict[str, Any] | None = None, *, embed: Any = None, **headers: Any
) -> Delivery:
    """Return a delivery of a task that a stock client sent."""
    body = b64encode(json.dumps([[], kwargs or {}, embed or {}]).encode()).decode()
    envelope = {
        "body": body,
        "content-type": "application/json",
        "headers": {"id": "1", "task": kind, "lang": "py", "argsrepr": "()", "retries": 0, **headers},
        "properties": {"body_encoding": "base64"},
    }
    return Delivery(Message.decode(json.dumps(envelope)), queue="default", token="1/0")


def test_the_result_of_a_failed_task_has_its_seconds(app: Celery) -> None:
    """A worker adds up the run times of a child's tasks, also of those that failed."""

    @app.task(name="slot.fail", shared=False)
    def fail() -> None:
        raise ValueError("no")

    make_ready(app)
    outcome, seconds, _used = run_delivery(delivered("slot.fail"))
    assert isinstance(outcome, DeadLetter)
    assert (outcome.reason, outcome.error) == ("ValueError", "ValueError: no")
    assert "in fail" in outcome.traceback
    assert seconds > 0


@pytest.mark.parametrize("own", [{}, {"x-tenant": "one", "traceparent": "00-1-2-01"}])
def test_a_task_sees_the_headers_that_celery_would_find(app: Celery, own: dict[str, Any]) -> None:
    """`self.request.headers` has what Celery's own request has, and Millpond's header."""
    seen = []

    @app.task(name="slot.look", bind=True, shared=False)
    def look(self: Task) -> None:
        seen.append(self.request.headers)

    make_ready(app)
    headers = {"id": "1", "task": "slot.look", "lang": "py", "argsrepr": "()", "retries": 0, **own}
    celerys = CeleryContext(headers, args=[], called_directly=False, kwargs={}).headers or {}
    assert isinstance(run_delivery(delivered("slot.look", **own))[0], Succeeded)
    assert seen == [{**celerys, "millpond": {"deliveries": 0, "clock_ms": 0, "of": "1"}}]


def test_a_task_that_would_stop_the_worker_is_redelivered(app: Celery) -> None:
    """Celery's `WorkerShutdown` is a `SystemExit`. It does not end the slot, and the delivery counts."""

    @app.task(name="slot.stop", shared=False)
    def stop() -> None:
        raise WorkerShutdown(0)

    make_ready(app)
    assert isinstance(run_delivery(delivered("slot.stop"))[0], Redeliver)


def greet(job: Greet, context: Context) -> str:
    """Return a greeting. While it runs, Celery's current task is its own."""
    task = trace._task_stack.top  # Celery's loggers read `current_task`
    assert (task.name, task.request.id, task.request.retries) == (Greet.kind, context.id, 0)
    return f"hello {job.name}"


@pytest.mark.parametrize("traced", [False, True])
def test_a_handler_runs_alike_with_and_without_celerys_tracer(app: Celery, traced: bool) -> None:
    """With a receiver of `task_prerun` the tracer runs it and calls the receiver."""
    register_handler(app, Handler(Greet, greet), PoolsTable.model_validate({"pools": {}, "queues": {}}))
    make_ready(app)
    called = []

    def before(task_id: str, **_: Any) -> None:
        called.append(task_id)

    if traced:
        signals.task_prerun.connect(before)
    try:
        outcome, _seconds, _used = run_delivery(delivered(Greet.kind, {"name": "you"}))
    finally:
        signals.task_prerun.disconnect(before)
    assert outcome == Succeeded(None, "'hello you'")
    assert called == (["1"] if traced else [])


def test_an_answer_of_middleware_is_the_result_of_a_celery_task(app: Any) -> None:
    """Its result is stored, so `.get()` ends, and its `link` is called."""
    app.conf.update(result_backend="cache+memory://", task_always_eager=True, task_store_eager_result=True)
    linked = list[int]()

    @app.task(name="slot.add")
    def add(a: int, b: int) -> int:
        raise AssertionError("the task must not run")

    @app.task(name="slot.note")
    def note(value: int) -> None:
        linked.append(value)

    class Cache(Middleware):
        def around_executing(self, job: Any, context: Any, call_next: Any) -> int:
            return 42

    app.hooks = (Hooks([Cache()]),) * 2
    make_ready(app)
    embed = {"callbacks": [note.s()], "errbacks": None, "chain": None, "chord": None}
    outcome, _seconds, _cpu = run_delivery(delivered("slot.add", {"a": 1, "b": 2}, embed=embed))
    assert isinstance(outcome, Succeeded)
    assert app.AsyncResult("1").get(timeout=1) == 42
    assert linked == [42]
