"""The operator's actions on the pages: figures, limits, pause, dead letters, batches, and the audit log."""

import json
import re
from dataclasses import replace

import pytest

from millpond.broker import audit, limits
from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.broker.inspect import depth
from millpond.broker.keys import sampling_key
from millpond.broker.stats import history
from tests.conftest import Eventually
from tests.harness.flower_process import Visitor, make_dead_letter, send_tasks


def figures(page: str) -> dict[str, str]:
    """Return the figures of a page by their marks."""
    found = re.findall(r'data-(?:figure|counter)="(\w+)">\s*([\d,]+)', page)
    return {name: value.replace(",", "") for name, value in found}


def test_a_queue_shows_what_redis_holds(ann: Visitor, watched: Store) -> None:
    """Ready, bound, counters and age are of this moment, on the page and for KEDA."""
    limits.change_limits(watched, "seen", bound=50)
    send_tasks(watched, "seen", 7)
    page = ann.get("/queues/seen").text
    assert (figures(page)["ready"], figures(page)["published"]) == ("7", "7")
    assert "of 50, overflow block" in page
    assert {"released", "rejected", "duplicates", "stale outcomes"} <= set(
        re.findall(r"<dt>([^<]+)</dt>", page)
    )
    found = json.loads(ann.get("/api/millpond/queues/seen").text)
    assert (found["depth"], found["ready"], found["limits"]["bound"]) == (7, 7, 50)
    assert found["oldest_seconds"] >= 0
    assert ann.get("/queues/nobody").status == 404
    assert json.loads(ann.get("/api/millpond/queues/nobody").text) == {"error": "no queue is named 'nobody'"}


def test_a_queue_that_waits_shows_why_its_pool_is_behind(ann: Visitor, watched: Store) -> None:
    """The page of a queue has the diagnosis of its pool, with the next command."""
    send_tasks(watched, "default", 1)
    page = ann.get("/queues/default").text
    assert "Pool default: no worker." in page
    assert "<code>millpond worker default</code>" in page


def test_limits_are_set_and_taken_back(ann: Visitor, watched: Store) -> None:
    """A filled field holds at once, an empty one returns to the table's value, nonsense changes nothing."""
    send_tasks(watched, "limited", 1)
    form = [("bound", "1,234"), ("rate", "90/m"), ("overflow", "shed"), ("in_flight", "")]
    assert "The limits of limited are set." in ann.post("/queues/limited/limits", form).text
    now = limits.read_limits(watched, "limited")
    assert (now.bound, now.rate, now.overflow, now.in_flight) == (1234, 1.5, "shed", 0)
    refused = ann.post("/queues/limited/limits", [("bound", "many")])
    assert (refused.status, "bound" in refused.text) == (400, True)
    assert limits.read_limits(watched, "limited") == now
    ann.post("/queues/limited/limits", [])
    assert limits.read_limits(watched, "limited") == limits.Limits()


def test_limits_that_a_command_set_can_be_sent_as_the_form_shows_them(ann: Visitor, watched: Store) -> None:
    """A form with one changed field carries all others as they were, and none of them is refused."""
    send_tasks(watched, "as-set", 1)
    before = limits.change_limits(watched, "as-set", burst=2.5, rate=1 / 86_400, bound="90s", in_flight=3)
    page = ann.get("/queues/as-set").text
    filled = dict(re.findall(r'<input class="form-control" name="(\w+)"[^>]* value="([^"]*)"', page))
    answer = ann.post("/queues/as-set/limits", list({**filled, "in_flight": "4"}.items()))
    assert "The limits of as-set are set." in answer.text
    assert limits.read_limits(watched, "as-set") == replace(before, in_flight=4)


@pytest.mark.parametrize("limit", ["bound", "rate", "burst", "in_flight"])
def test_a_limit_beyond_all_numbers_is_refused_in_words(ann: Visitor, watched: Store, limit: str) -> None:
    """A number that is too large is refused as the visitor's error, not as a fault of the page."""
    send_tasks(watched, "long", 1)
    for digits in (400, 5_000):
        answer = ann.post("/queues/long/limits", [(limit, "9" * digits)])
        assert (answer.status, limit.replace("_", " ") in answer.text) == (400, True)
    assert limits.read_limits(watched, "long") == limits.Limits()


def test_a_queue_is_paused_and_goes_on(ann: Visitor, watched: Store) -> None:
    """Pausing and resuming are seen at once on the page and in Redis, and both are in the audit."""
    send_tasks(watched, "stopped", 1)
    assert "paused" in ann.post("/queues/stopped/pause", []).text
    assert limits.read_limits(watched, "stopped").paused
    assert "stopped is resumed." in ann.post("/queues/stopped/resume", [("back", "list")]).text
    assert not limits.read_limits(watched, "stopped").paused
    last, before = list(audit.read_changes(watched, limit=2))
    assert (last.action, before.action) == ("resumed queue stopped", "paused queue stopped")
    assert last.user == "ann by Flower from 127.0.0.1"
    assert "paused queue stopped" in ann.get("/queues").text


def test_a_dead_letter_is_found_shown_redacted_and_requeued(ann: Visitor, watched: Store) -> None:
    """A dead letter is found by a part of its error, shown without secrets, and requeued when confirmed."""
    kwargs = {"sender": "a@example.org", "to": ["b@example.org"], "subject": "s", "text": "the dark secret"}
    make_dead_letter(watched, "post", "SMTPRefused", "550 no such user", kind="email.send", kwargs=kwargs)
    make_dead_letter(watched, "post", "Other", "something else", kind="squares.square", kwargs={"n": 1})
    page = ann.get("/dead?queue=post&reason=no+such").text
    assert page.count('name="id"') == 1
    [id_] = re.findall(r'name="id" value="post ([0-9-]+)"', page)
    whole = ann.get(f"/dead/post/{id_}").text
    assert "550 no such user" in whole
    assert "the dark secret" not in whole
    asked = ann.post("/dead/requeue", [("id", f"post {id_}")])
    assert "Requeue 1 dead letter?" in asked.text
    assert depth.read_depth(watched, "post").dead == 2
    done = ann.post("/dead/requeue", [("id", f"post {id_}"), ("confirmed", "yes")])
    assert "1 dead letter requeued." in done.text
    assert (depth.read_depth(watched, "post").dead, depth.read_depth(watched, "post").ready) == (1, 1)
    assert ann.get(f"/dead/post/{id_}").status == 404
    assert next(audit.read_changes(watched)).action == f"requeued 1 dead letter: post {id_}"


def test_all_that_fit_are_purged_and_no_later_one(ann: Visitor, watched: Store) -> None:
    """A purge leaves the dead letters that came after its confirmation was asked for.

    A form whose time of the confirmation is none purges nothing.
    """
    for n in range(3):
        make_dead_letter(watched, "gone", "Stale", f"number {n}", kind="squares.square", kwargs={"n": n})
    asked = ann.post("/dead/purge", [("all", "yes"), ("queue", "gone"), ("reason", "Stale")]).text
    assert "Purge 3 dead letters?" in asked
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', asked)
    make_dead_letter(watched, "gone", "Stale", "a later one", kind="squares.square", kwargs={"n": 4})
    form = [(name, value) for name, value in fields if name != "_xsrf"]
    for wrong in ("9" * 5_000, "soon"):
        changed = [(name, wrong if name == "until_ms" else value) for name, value in form]
        assert ann.post("/dead/purge", changed).status == 400
    assert "3 dead letters purged." in ann.post("/dead/purge", form).text
    assert depth.read_depth(watched, "gone").dead == 1


def test_a_page_that_leaves_batches_out_says_so(ann: Visitor, watched: Store) -> None:
    """A list of a hundred batches has a note that older ones are left out."""
    assert "are shown" not in ann.get("/batches").text
    for _ in range(101):
        record.open_batch(watched)
    page = ann.get("/batches").text
    assert "The newest 100 are shown; <code>millpond batches --limit N</code> lists more." in page
    assert len(set(re.findall(r'href="[^"]*/batches/([^"/]+)"', page))) == 100


def test_a_batch_is_shown_and_cancelled(ann: Visitor, watched: Store) -> None:
    """The page of a batch has its counts; its cancel button asks first, and then cancels."""
    batch = record.open_batch(watched, description="the night run")
    assert "the night run" in ann.get("/batches").text
    assert figures(ann.get(f"/batches/{batch}").text)["sent"] == "0"
    assert "Cancel the rest" in ann.post(f"/batches/{batch}/cancel", []).text
    assert record.read_summary(watched, batch).cancelled_at_ms is None
    assert "Cancelled" in ann.post(f"/batches/{batch}/cancel", [("confirmed", "yes")]).text
    assert record.read_summary(watched, batch).cancelled_at_ms is not None
    assert ann.get("/batches/nobody").status == 404


def test_metrics_and_samples_are_there_without_a_worker(
    ann: Visitor, watched: Store, eventually: Eventually
) -> None:
    """Flower's metrics and ours are one answer; Flower samples the last hour where no worker does."""
    send_tasks(watched, "measured", 3)
    text = ann.get("/metrics").text
    assert 'millpond_queue_ready{queue="measured"} 3.0' in text
    assert 'millpond_queue_published_total{queue="measured"} 3.0' in text
    assert "flower_events_total" in text
    watched.client.delete(sampling_key(watched.prefix))  # as if the last samples were ten seconds old
    eventually(lambda: history.HistoryCache(watched).samples(["queue:measured"])[0], 25)
    for path in ("/workers", "/tasks", "/broker"):
        assert 'href="/queues"' in ann.get(path).text, path
