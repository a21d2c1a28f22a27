"""An operator at Millpond's pages, in a real browser: sees, pauses, finds, requeues, watches."""

import re
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from millpond.broker.batches import record
from millpond.broker.connection import connect
from millpond.broker.stats import heartbeats, history
from millpond.producer.client import Client
from millpond.worker.local.embedded import Embedded
from tests.conftest import Eventually
from tests.harness.flower_process import make_dead_letter

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

POND = {
    "pools": ["default"],
    "flower": True,
    "settings": {
        "table": {"pools": {"default": {"concurrency": 1, "prefetch": 0}}},
        "flower_basic_auth": ("ann:secret",),
    },
}
WIDTHS = {"wide": 1280, "narrow": 390}
#: How many tables are wider than their place, or have an error squeezed into a column that nobody can read.
OUT_OF_SIGHT = """[...document.querySelectorAll(".table-responsive")].filter(
    (each) => each.scrollWidth > each.clientWidth
        || [...each.querySelectorAll(".millpond-error")].some((cell) => cell.clientWidth < 180)
).length"""


def test_an_operator_pauses_a_queue_and_brings_back_what_died(
    open_page: Callable[..., Any], pond: Embedded, tmp_path: Path, eventually: Eventually
) -> None:
    """A queue fills before her eyes; she pauses it, finds why one died, requeues it, sees it succeed."""
    from pond_kinds import Gate

    page = open_page()
    page.goto("/queues")
    ready = page.locator('tr[data-queue="default"] td[data-label="Ready"]')
    ready.get_by_text("0 of").wait_for()
    with Client(pond.url) as client:
        client.send(Gate(folder=str(tmp_path), name="first"))
        eventually((tmp_path / "first.started").exists, 30)
        client.send_many(Gate(folder=str(tmp_path), name=f"next-{n}") for n in range(3))
        ready.get_by_text("3 of").wait_for()

        page.get_by_role("button", name="Pause default").click()
        page.get_by_text("default is paused.").wait_for()
        (tmp_path / "first.open").touch()
        eventually((tmp_path / "first.done").exists, 30)
        page.locator('tr[data-queue="default"] td[data-label="In flight"]').get_by_text("0").wait_for()
        assert not (tmp_path / "next-0.started").exists()
        for n in range(3):
            (tmp_path / f"next-{n}.open").touch()
        page.get_by_role("button", name="Resume default").click()
        eventually(lambda: all((tmp_path / f"next-{n}.done").exists() for n in range(3)), 60)

        client.send(Gate(folder=str(tmp_path / "not yet"), name="late"))
    dead = page.locator('tr[data-queue="default"] td[data-label="Dead"]').get_by_role("link", name="1")
    dead.click()
    page.get_by_label("Reason or error").fill("No such file")
    page.get_by_role("button", name="Search").click()
    page.locator("#dead-live").get_by_role("link").click()
    page.get_by_text("FileNotFoundError").first.wait_for()
    (tmp_path / "not yet").mkdir()
    (tmp_path / "not yet" / "late.open").touch()
    page.get_by_role("button", name="Requeue").click()
    page.get_by_role("heading", name="Requeue 1 dead letter?").wait_for()
    page.get_by_role("button", name="Requeue").click()
    page.get_by_text("1 dead letter requeued.").wait_for()
    page.goto("/queues/default")
    page.locator('[data-counter="settled"]').get_by_text("5", exact=True).wait_for()
    assert (tmp_path / "not yet" / "late.done").exists()
    page.goto("/queues")
    page.get_by_text("requeued 1 dead letter").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", list(WIDTHS))
def test_the_pages_fit_their_screen(
    open_page: Callable[..., Any], pond: Embedded, tmp_path: Path, scheme: str, width: str
) -> None:
    """Every page is drawn in light and in dark, is no wider than a phone, and runs no text as a script.

    Nothing of a table is out of sight either, such as the button at its end, whatever a name or a reason is.
    """
    store = connect(pond.url)
    batch = record.open_batch(store, description="<img src=x onerror=alert(1)> the night run")
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    make_dead_letter(
        store, f"of{hostile}".replace("/", ""), hostile, hostile * 3, kind=hostile, kwargs={hostile: hostile}
    )
    page = open_page(scheme=scheme, width=WIDTHS[width])
    for path in ("/pools", "/queues", "/queues/default", "/dead", "/batches", f"/batches/{batch}"):
        page.goto(path)
        page.locator("#millpond-status").get_by_text("Live").wait_for()
        assert page.locator("html").get_attribute("data-bs-theme") == scheme
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= WIDTHS[width], f"{path} is {wide} wide"
        assert page.evaluate(OUT_OF_SIGHT) == 0, path
        page.screenshot(path=tmp_path / f"{path.strip('/').replace('/', '-')}.png", full_page=True)
    store.close()


def test_the_list_of_tasks_says_when_it_is_a_sample(
    open_page: Callable[..., Any], pond: Embedded, eventually: Eventually
) -> None:
    """Flower's own pages say nothing while they show every task, and else of how many they do."""
    page = open_page()
    page.goto("/tasks")
    page.wait_for_load_state("networkidle")
    assert not page.locator("#millpond-sample").is_visible()
    store = connect(pond.url)
    [report] = eventually(lambda: heartbeats.read_processes(store), 20)
    eventually(
        lambda: history.HistoryCache(store).samples(["pool:default"])[0], 30
    )  # what the last minute is compared with
    heartbeats.send_heartbeat(store, report, {"shown": 1_200, "left_out": 34_000})
    for path in ("/tasks", "/workers"):
        page.goto(path)
        # The tasks of the tests before may be within the minute.
        page.get_by_text(
            re.compile(r"sent the events of 1,2\d\d of 35,2\d\d tasks in the last minute")
        ).wait_for()
    store.close()


def test_a_page_that_takes_long_is_asked_more_seldom(open_page: Callable[..., Any]) -> None:
    """Between two looks is ten times what the first took, so that nobody's open page keeps Flower busy."""
    page = open_page()
    page.goto("/dead")
    asked: list[float] = []

    def slowly(route: Any) -> None:
        asked.append(monotonic())
        page.wait_for_timeout(500)
        route.continue_()

    page.route("**/dead", slowly)
    deadline = monotonic() + 60
    while len(asked) < 2 and monotonic() < deadline:
        page.wait_for_timeout(100)
    page.unroute_all(behavior="wait")
    assert asked[1] - asked[0] > 5


def test_a_batch_shows_what_runs_and_what_failed_only_then(
    open_page: Callable[..., Any], pond: Embedded, tmp_path: Path
) -> None:
    """What starts, ends and fails while somebody looks at a batch comes and goes before her eyes."""
    from pond_kinds import Gate

    page = open_page()
    with Client(pond.url) as client:
        batch = client.batch("before her eyes")
        page.goto(f"/batches/{batch.id}")
        held, failures = (
            page.get_by_role("heading", name="Running"),
            page.get_by_text("Failures, the latest first"),
        )
        page.get_by_role("heading", name="open").wait_for()
        assert not held.is_visible()
        batch.send(Gate(folder=str(tmp_path), name="seen"))
        held.wait_for()
        assert not failures.is_visible()
        batch.send(Gate(folder=str(tmp_path / "nowhere"), name="failing"))
        batch.close()
        (tmp_path / "seen.open").touch()
        failures.wait_for()
        page.get_by_role("heading", name="complete").wait_for()
        held.wait_for(state="hidden")


def test_a_page_says_when_flower_cannot_reach_the_broker(open_page: Callable[..., Any]) -> None:
    """The figures stay, and the page says that they are not live, until the broker answers again."""
    page = open_page()
    page.goto("/queues")
    page.route("**/queues", lambda route: route.fulfill(status=503, body="away"))
    page.get_by_text("The broker is away").wait_for()
    page.locator('tr[data-queue="default"]').wait_for()
    page.unroute("**/queues")
    page.locator("#millpond-status").get_by_text("Live").wait_for()
