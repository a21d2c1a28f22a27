"""What a slot answers of a task that ended badly."""

from typing import Any

import pytest
from celery import Celery
from celery.app import trace

from worker.slot import SECONDS, run


@pytest.fixture
def app() -> Any:
    with Celery("slot", set_as_current=False) as app:
        before = trace._localized[:]
        trace.setup_worker_optimizations(app, "here")
        yield app
        trace.reset_worker_optimizations(app)
        trace._localized[:] = before


def test_a_task_that_fails_says_how_long_it_took(app: Celery) -> None:
    """Celery does not; who adds the times of a child's tasks up needs all of them."""

    @app.task(name="slot.fail")
    def fail() -> None:
        raise ValueError("no")

    app.finalize()
    answer = run("slot.fail", "1", {"id": "1", "task": "slot.fail"}, ([], {}, {}))
    assert answer[0] == 1
    assert isinstance(answer[SECONDS], float)
