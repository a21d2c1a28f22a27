"""Flower's pages need its login, refuse changes without the right to make them, and run no foreign script."""

import re
from urllib.parse import quote

import pytest

from millpond.broker import limits
from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.monitor.pages.routes import ROUTES
from tests.harness.flower_process import (
    LOGIN,
    Visitor,
    filled_path,
    make_dead_letter,
    run_flower,
    send_tasks,
)

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><b>{{ 7*7 }}"

#: Each route with something in its holes.
PATHS = [*(filled_path(pattern) for pattern, _, _ in ROUTES), "/millpond/static/refresh.js"]


@pytest.mark.parametrize("path", PATHS)
def test_no_route_answers_without_the_login(path: str, flower_url: str) -> None:
    """Without a login, no page, file, metric or figure is served, and nothing can be changed."""
    for login in (None, "ann:wrong"):
        visitor = Visitor(flower_url, login=login)
        assert visitor.get(path).status == 401
        assert visitor.post(path, [], token=False).status in (401, 403, 405)


def test_a_form_of_somebody_else_is_refused(ann: Visitor, watched: Store) -> None:
    """A form without the token of our pages, with a wrong token, or from another site changes nothing."""
    send_tasks(watched, "default", 1)
    path = "/queues/default/pause"
    assert ann.post(path, [], token=False).status == 403
    assert ann.post(path, [("_xsrf", "made-up")], token=False).status == 403
    assert ann.post(path, [], Origin="http://elsewhere.example").status == 403
    assert ann.post(path, [], Sec_Fetch_Site="cross-site").status == 403
    assert not limits.read_limits(watched, "default").paused
    assert ann.post(path, []).status == 200
    assert limits.read_limits(watched, "default").paused
    limits.change_limits(watched, "default", paused=None)


def test_hostile_texts_are_shown_and_not_run(ann: Visitor, watched: Store) -> None:
    """A kind, an argument, an error, a batch or a queue that holds markup is text on every page."""
    queue = f"q/{HOSTILE}"
    make_dead_letter(watched, queue, HOSTILE, HOSTILE, kind=HOSTILE, kwargs={HOSTILE: HOSTILE})
    batch = record.open_batch(watched, description=HOSTILE)
    letter = re.search(r'href="(/dead/[^"]+-[0-9]+)"', ann.get(f"/dead?queue={quote(queue)}").text)
    assert letter
    paths = [
        "/dead",
        letter[1],
        "/queues",
        f"/queues/{quote(queue, safe='')}",
        "/batches",
        f"/batches/{batch}",
    ]
    asked = f"/dead?reason={quote(HOSTILE)}&kind={quote(HOSTILE)}&queue={quote(queue)}"
    for path in [*paths, asked, f"/dead?since={quote(HOSTILE)}", f"/queues/{quote(HOSTILE, safe='')}"]:
        page = ann.get(path)
        assert page.status in (200, 400, 404), path
        assert "alert(1)" in page.text, path
        assert not re.search(r"<script>alert|<img src=x|>49<", page.text), path
        assert "default-src 'self'" in page.headers["Content-Security-Policy"], path
    assert ann.post("/queues/" + quote(queue, safe="") + "/pause", []).status == 200
    assert "<script>alert" not in ann.get("/queues").text


def test_read_only_hides_every_button_and_refuses_every_change(pages_url: str, watched: Store) -> None:
    """With `flower_read_only` every change is refused, with and without a login or a token."""
    make_dead_letter(watched, "default", "a reason", "an error", kind="squares.square", kwargs={"n": "x"})
    batch = record.open_batch(watched)
    with run_flower(pages_url, flower_basic_auth=(LOGIN,), flower_read_only=True) as url:
        ann = Visitor(url)
        for path in ("/pools", "/queues", "/queues/default", "/dead", "/batches", f"/batches/{batch}"):
            page = ann.get(path).text
            assert 'method="post"' not in page, path
            assert "Read only mode is enabled" in page
        _changes_nothing(ann, watched, batch)


def test_without_a_login_it_shows_and_changes_nothing(public_flower_url: str, watched: Store) -> None:
    """Without a configured login, requests to the machine's own name may read, and none may change."""
    batch = record.open_batch(watched)
    anybody = Visitor(public_flower_url, login=None)
    page = anybody.get("/queues")
    assert (page.status, 'method="post"' in page.text) == (200, False)
    assert "MILLPOND_FLOWER_BASIC_AUTH" in page.text
    _changes_nothing(anybody, watched, batch)


def _changes_nothing(visitor: Visitor, store: Store, batch: str) -> None:
    posts = ["/queues/default/pause", "/queues/default/limits", f"/batches/{batch}/cancel"]
    for path in [*posts, "/dead/requeue", "/dead/purge"]:
        form = [("confirmed", "yes"), ("all", "yes"), ("bound", "1")]
        assert visitor.post(path, form).status == 403, path
    assert not limits.read_limits(store, "default").paused
    assert record.read_summary(store, batch).cancelled_at_ms is None


@pytest.mark.parametrize("name", ["%00", "..%2fpages%2fguard.py", "nothing.css"])
def test_a_name_that_is_no_static_file_is_not_found(ann: Visitor, name: str) -> None:
    """A name that no file can have is no error of the server."""
    assert ann.get(f"/millpond/static/{name}").status == 404
