"""Flower in a real browser: a person finds workers, tasks and queues on its pages, and no secret."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from millpond.producer.client import Client
from millpond.tasks.app import celery_app
from millpond.worker.local.embedded import Embedded
from tests.conftest import Eventually

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

#: One slot and nothing held beyond it, so that what waits is on the queue, where the page counts it.
POND = {
    "pools": ["default"],
    "flower": True,
    "settings": {"table": {"pools": {"default": {"concurrency": 1, "prefetch": 0}}}},
}
SECRET = "the-cellar-door-is-open"


@pytest.fixture
def page(chromium: Any, pond: Embedded, tmp_path: Path) -> Iterator[Any]:
    """Open a page without a login; leave a picture of what it saw last."""
    context = chromium.new_context(base_url=pond.flower_url)
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    yield opened
    opened.screenshot(path=tmp_path / "page.png", full_page=True)
    context.close()


@pytest.fixture
def online(page: Any) -> Any:
    """Wait until the page lists the worker as online, so that it hears the events of the tasks to come."""
    page.goto("/workers")
    page.get_by_role("row").filter(has_text="default.1@").filter(has_text="Online").wait_for()
    return page


def test_tasks_are_found_with_their_arguments_and_without_secrets(online: Any, pond: Embedded) -> None:
    """Sent by our client or a stock one, a task is there with its name, state and redacted arguments."""
    from pond_kinds import Whisper

    with Client(pond.url) as client:
        ours = client.send(Whisper(aloud="from our client", secret=SECRET)).id
    with celery_app(pond.settings) as app, Connection(pond.url) as connection:
        kwargs = {"aloud": "from a stock client", "secret": SECRET}
        stock = app.send_task("test.whisper", kwargs=kwargs, queue="default", connection=connection).id
    for task_id, aloud in ((ours, "from our client"), (stock, "from a stock client")):
        row = _reloading(online, "/tasks", f"{task_id}", "SUCCESS")
        assert "test.whisper" in row
        assert aloud in row
        assert f"[redacted, {len(SECRET)} long]" in row
        online.goto(f"/task/{task_id}")
        online.get_by_text("default.1@").first.wait_for()
        assert SECRET not in online.content()
        assert aloud in online.content()


def test_the_worker_page_shows_slots_and_queues(online: Any, pond: Embedded) -> None:
    """A worker's page tells its slots and the queues it takes from, and no password of the broker."""
    online.get_by_role("link", name="default.1@").click()
    online.get_by_role("heading", name="default.1@").wait_for()
    slots = online.get_by_role("row").filter(has_text="Max concurrency")
    assert slots.inner_text().split() == ["Max", "concurrency", "1"]
    online.locator("#worker-tab-queues").click()
    online.locator("#worker-queues").get_by_text("default", exact=True).first.wait_for()
    password = pond.url.partition("://:")[2].partition("@")[0]
    assert password
    assert password not in online.content()


def test_the_queue_page_counts_what_waits(
    online: Any, pond: Embedded, tmp_path: Path, eventually: Eventually
) -> None:
    """With the one slot busy, the page shows the three tasks that wait on the queue."""
    from pond_kinds import Gate

    with Client(pond.url) as client:
        client.send(Gate(folder=str(tmp_path), name="busy"))
        eventually((tmp_path / "busy.started").exists)
        client.send_many(Gate(folder=str(tmp_path), name=f"waits-{n}") for n in range(3))
    row = _reloading(online, "/broker", "default", "3")
    for name in ("busy", "waits-0", "waits-1", "waits-2"):
        (tmp_path / f"{name}.open").touch()
    assert row.split()[:2] == ["default", "3"]
    eventually(lambda: all((tmp_path / f"waits-{n}.done").exists() for n in range(3)), timeout=30)


def _reloading(page: Any, path: str, *words: str) -> str:
    """Load a page anew until a row has all the words; return the row's text."""
    from playwright.sync_api import TimeoutError as NotThere

    for _ in range(15):
        page.goto(path)
        row = page.get_by_role("row")
        for word in words:
            row = row.filter(has_text=word)
        try:
            row.first.wait_for(timeout=2_000)
        except NotThere:
            continue
        return str(row.first.inner_text())
    pytest.fail(f"{path} has no row with {words}: {page.locator('body').inner_text()}")
