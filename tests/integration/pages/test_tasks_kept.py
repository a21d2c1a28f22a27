"""Flower keeps as many tasks as it is told, for they are what its memory goes into."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from celery.events import EventDispatcher
from flowers import PREFIX, Visitor, flower

from broker.connection import connect
from tasks.app import celery_app
from tasks.settings import Settings

KEPT = 3


@pytest.fixture
def told(url: str) -> Iterator[tuple[Visitor, Celery]]:
    """Run a Flower that keeps three tasks, and an application that tells it of tasks."""
    with (
        flower(url, flower_max_tasks=KEPT, flower_basic_auth=("ann:secret",)) as page,
        celery_app(Settings(broker_url=url, key_prefix=PREFIX)) as app,
    ):
        yield Visitor(page), app


def test_the_latest_tasks_are_kept(
    told: tuple[Visitor, Celery], url: str, eventually: Callable[..., Any]
) -> None:
    """Of ten tasks that it hears of, its page has the last three."""
    visitor, app = told
    store = connect(url)
    eventually(lambda: store.client.pubsub_numpat(), 20)
    store.close()
    with app.connection() as connection, EventDispatcher(connection, hostname="w@here", app=app) as tell:
        for n in range(10):
            tell.send("task-received", uuid=f"task-number-{n}", name="test.told", args="()", kwargs="{}")
    eventually(lambda: visitor.get("/task/task-number-9").status == 200, 20)
    there = [n for n in range(10) if visitor.get(f"/task/task-number-{n}").status == 200]
    assert there == [7, 8, 9]
