"""Tasks written for Celery itself, named in `kinds`, are treated as bodies are."""

from collections.abc import Iterable, Iterator

import pytest
from celery import Celery

from millpond.broker.connection import Store
from millpond.broker.inspect.dead_letters import read_dead_letters
from millpond.broker.inspect.depth import read_depth
from millpond.broker.stats import heartbeats
from tests.conftest import Eventually
from tests.harness.one_worker import settings_for, workers


@pytest.fixture(scope="module", params=["threads", pytest.param("prefork", marks=pytest.mark.slow)])
def store(
    request: pytest.FixtureRequest,
    module_url: str,
    module_store: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Store]:
    """Run a worker, and return a store of its database."""
    pool = {"executor": request.param, "concurrency": 2}
    with workers(
        settings_for(module_url, pool=pool, kinds=("stock_tasks",)), tmp_path_factory.mktemp("plain")
    ):
        yield module_store
    module_store.client.flushdb()


def send(url: str, tasks: Iterable[tuple[str, tuple[int, ...], str | None]]) -> None:
    """Send tasks by their names, with arguments and Celery's `shadow`, as a stock client does."""
    app = Celery(broker=url)
    with app.connection_for_write() as connection:
        for name, args, shadow in tasks:
            app.send_task(name, args=args, shadow=shadow, queue="default", connection=connection)


def test_plain_celery_tasks_are_settled_counted_and_buried(
    store: Store, module_url: str, eventually: Eventually
) -> None:
    """A final failure is a dead letter, an ignored one is none, and figures count each run."""
    sent = (("divide", (6, 3)), ("divide", (1, 0)), ("flaky", ()), ("ignored", ()))
    send(module_url, ((f"shop.{name}", args, None) for name, args in sent))
    eventually(lambda: _ended(store) == {"succeeded": 2, "retried": 1, "failed": 2})
    eventually(lambda: read_depth(store, "default").dead == 2)
    reasons = {letter.reason: letter.kind for letter in read_dead_letters(store, "default")}
    assert reasons == {"ZeroDivisionError": "shop.divide", "OSError": "shop.flaky"}


def test_figures_are_of_kinds_whatever_a_sender_calls_its_tasks(
    store: Store, module_url: str, eventually: Eventually
) -> None:
    """Celery's `shadow` names a task for people; figures, kept for good, do not grow with such names."""
    before = _ended(store).get("succeeded", 0)
    send(module_url, (("shop.divide", (n, 3), f"order {n}") for n in range(5)))
    eventually(lambda: _ended(store).get("succeeded", 0) == before + 5)
    [totals] = heartbeats.read_totals(store, ["default"])
    assert {*(kind for _state, kind in totals.ended), *totals.service} <= {
        "shop.divide",
        "shop.flaky",
        "shop.ignored",
    }


def _ended(store: Store) -> dict[str, int]:
    [totals] = heartbeats.read_totals(store, ["default"])
    return (
        {}
        if totals is None
        else {s: n for s in ("succeeded", "retried", "failed") if (n := totals.count_ended(s))}
    )
