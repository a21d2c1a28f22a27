"""What a slot answers of a task that ended badly."""

from typing import Any

import pytest
from celery import Celery, Task
from celery.app import trace
from celery.app.task import Context

from millpond.worker.celery.slot import SECONDS, run


@pytest.fixture
def app() -> Any:
    with Celery("slot", set_as_current=False) as app:
        before = trace._localized[:]
        trace.setup_worker_optimizations(app, "here")
        yield app
        trace.reset_worker_optimizations(app)
        trace._localized[:] = before


def make_ready(app: Celery) -> None:
    app.finalize()
    for name, task in app.tasks.items():
        task.__trace__ = trace.build_tracer(name, task, app.loader, "here", app=app)


def test_a_task_that_fails_says_how_long_it_took(app: Celery) -> None:
    """Celery does not; who adds the times of a child's tasks up needs all of them."""

    @app.task(name="slot.fail", shared=False)
    def fail() -> None:
        raise ValueError("no")

    make_ready(app)
    answer = run("slot.fail", "1", {"id": "1", "task": "slot.fail"}, ([], {}, {}))
    assert answer[0] == 1
    assert isinstance(answer[1].exception, ValueError)
    assert isinstance(answer[SECONDS], float)


@pytest.mark.parametrize("own", [{}, {"millpond": {"deliveries": 0}, "traceparent": "00-1-2-01"}])
def test_a_body_sees_the_headers_that_celery_would_find(app: Celery, own: dict[str, Any]) -> None:
    """They are looked for in a quicker way, and are the same."""
    seen = []

    @app.task(name="slot.look", bind=True, shared=False)
    def look(self: Task) -> None:
        seen.append(self.request.headers)

    make_ready(app)
    request = {"id": "1", "task": "slot.look", "lang": "py", "argsrepr": "()", "retries": 0, **own}
    celerys = Context(request, args=[], called_directly=False, kwargs={}).headers
    assert run("slot.look", "1", request, ([], {}, {}))[0] == 0
    assert seen == [celerys] == [own or None]
