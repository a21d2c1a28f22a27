"""Tasks written for Celery itself, named in `kinds`, are treated as bodies are."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from millpond.broker.connection import Store, connect
from millpond.broker.inspect.dead_letters import read_dead_letters
from millpond.broker.inspect.depth import read_depth
from millpond.broker.stats import heartbeats
from millpond.tasks.settings import Settings
from tests.harness.one_worker import settings_for, workers

Eventually = Callable[..., Any]


@pytest.fixture(params=["threads", pytest.param("prefork", marks=pytest.mark.slow)])
def settings(
    request: pytest.FixtureRequest, url: str, kinds_path: None, tmp_path: Path
) -> Iterator[Settings]:
    pool = {"executor": request.param, "concurrency": 2}
    chosen = settings_for(url, pool=pool, kinds=("stock_tasks",))
    with workers(chosen, tmp_path):
        yield chosen


def test_plain_celery_tasks_are_settled_counted_and_buried(
    settings: Settings, eventually: Eventually
) -> None:
    """A final failure is a dead letter, an ignored one is none, and figures count each run."""
    store = connect(settings.broker_url or "")
    app = Celery(broker=settings.broker_url)
    with app.connection_for_write() as connection:
        for name, args in (("divide", (6, 3)), ("divide", (1, 0)), ("flaky", ()), ("ignored", ())):
            app.send_task(f"shop.{name}", args=args, queue="default", connection=connection)

    eventually(lambda: _ended(store) == {"succeeded": 2, "retried": 1, "failed": 2})
    eventually(lambda: read_depth(store, "default").dead == 2)
    reasons = {letter.reason: letter.kind for letter in read_dead_letters(store, "default")}
    assert reasons == {"ZeroDivisionError": "shop.divide", "OSError": "shop.flaky"}
    store.close()


def test_figures_are_of_kinds_whatever_a_sender_calls_its_tasks(
    settings: Settings, eventually: Eventually
) -> None:
    """Celery's `shadow` names a task for people; figures, kept for good, do not grow with such names."""
    store = connect(settings.broker_url or "")
    app = Celery(broker=settings.broker_url)
    with app.connection_for_write() as connection:
        for order in range(5):
            named = {"shadow": f"order {order}", "connection": connection}
            app.send_task("shop.divide", args=(order, 3), queue="default", **named)

    eventually(lambda: _ended(store) == {"succeeded": 5})
    [totals] = heartbeats.read_totals(store, ["default"])
    assert (set(totals.ended), set(totals.service)) == ({("succeeded", "shop.divide")}, {"shop.divide"})
    store.close()


def _ended(store: Store) -> dict[str, int]:
    [totals] = heartbeats.read_totals(store, ["default"])
    return (
        {}
        if totals is None
        else {s: n for s in ("succeeded", "retried", "failed") if (n := totals.count_ended(s))}
    )
