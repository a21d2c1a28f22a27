"""The examples of middleware run as they stand: real workers, both executors, the settings that they name."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from millpond import Client
from millpond.tasks.settings import Settings
from tests.harness.one_worker import settings_for, workers

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the examples importable here and in the workers, as for an application in their folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))


def settings(url: str, executor: str, kinds: str, middleware: str) -> Settings:
    pool = {"executor": executor, "concurrency": 2}
    return settings_for(url, pool=pool, kinds=(kinds,), middleware=(middleware,))


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_a_session_is_committed_or_rolled_back_with_its_task(
    executor: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a handler wrote is there if it returned, and is not if it raised."""
    database = tmp_path / "shop.db"
    monkeypatch.setenv("SHOP_DATABASE", str(database))
    chosen = settings(url, executor, "database_session", "database_session:DatabaseSession")
    with workers(chosen, tmp_path), Client(settings=chosen) as client, client.batch() as batch:
        for number, total in ((1, 100), (2, -5), (3, 300)):
            batch.send(("shop.place-order", {"number": number, "total": total}))
        batch.close()
        states = sorted(result.state for result in batch.results())
    assert states == ["failed", "succeeded", "succeeded"]
    with closing(sqlite3.connect(database)) as session:
        assert session.execute("select * from orders order by number").fetchall() == [(1, 100), (3, 300)]


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_a_tenant_travels_to_what_a_handler_sends(executor: str, url: str, tmp_path: Path) -> None:
    """The tenant of the producer is that of the task, and of the task that its handler sends."""
    chosen = settings(url, executor, "tenant_header", "tenant_header:Tenants")
    with workers(chosen, tmp_path), Client(settings=chosen) as client:
        from tenant_header import Invoice, tenant

        batch = client.batch()
        before = tenant.set("acme")
        batch.send(Invoice(order=7))
        tenant.reset(before)
        batch.send(Invoice(order=8))
        values = [next(results).value for results in [batch.results()] for _ in range(4)]
        batch.close()
    assert sorted(values) == ["invoice 7 of acme", "invoice 8 of ", "receipt 7 of acme", "receipt 8 of "]
