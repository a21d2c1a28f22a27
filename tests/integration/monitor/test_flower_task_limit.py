"""Flower keeps no more tasks than its limit: tasks take most of its memory."""

from collections.abc import Iterator

import pytest
from celery import Celery
from celery.events import EventDispatcher

from millpond.tasks.app import celery_app
from millpond.tasks.settings import Settings
from tests.conftest import Eventually
from tests.harness.flower_process import PREFIX, Visitor, run_flower

KEPT = 3


@pytest.fixture
def flower_and_app(url: str) -> Iterator[tuple[Visitor, Celery]]:
    """Run a Flower that keeps three tasks, and an application that sends it events of tasks."""
    with (
        run_flower(url, flower_max_tasks=KEPT, flower_basic_auth=("ann:secret",)) as page,
        celery_app(Settings(broker_url=url, key_prefix=PREFIX)) as app,
    ):
        yield Visitor(page), app


def test_the_latest_tasks_are_kept(flower_and_app: tuple[Visitor, Celery], eventually: Eventually) -> None:
    """Of ten tasks whose events Flower gets, its page has the last three."""
    visitor, app = flower_and_app

    def is_there(name: str) -> bool:
        return bool(visitor.get(f"/task/{name}").status == 200)

    with (
        app.connection() as connection,
        EventDispatcher(connection, hostname="w@here", app=app) as dispatcher,
    ):

        def is_received(name: str) -> bool:
            dispatcher.send("task-received", uuid=name, name="test.kind", args="()", kwargs="{}")
            return is_there(name)

        eventually(lambda: is_received("anybody"), 20, every_seconds=0.2)
        for n in range(10):
            dispatcher.send(
                "task-received", uuid=f"task-number-{n}", name="test.kind", args="()", kwargs="{}"
            )
    eventually(lambda: is_there("task-number-9"), 20)
    there = [n for n in range(10) if is_there(f"task-number-{n}")]
    assert there == [7, 8, 9]
