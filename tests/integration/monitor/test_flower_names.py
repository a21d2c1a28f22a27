"""Names that strangers chose are linked, shown and acted on whole: a queue may be called anything."""

import json
import re
from html import unescape
from urllib.parse import quote

import pytest

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.inspect import depth
from tests.harness.flower_process import Visitor, make_dead_letter, send_tasks

NAMES = [
    "mail/eu",
    "/",
    "a//b/",
    "100%",
    "50%2F",
    "a b+c",
    "what?x=1&y=2#z",
    "grün/🐟",
    "resume",
    "a/pause",
    "  q\x1b[1m",
]


def link(page: str, pattern: str) -> str:
    """Return the one link of a page that fits."""
    [found] = {each for each in re.findall(r'(?:href|action)="([^"]+)"', page) if re.fullmatch(pattern, each)}
    return unescape(found)


@pytest.mark.parametrize("name", NAMES)
def test_a_queue_is_reached_whatever_its_name(ann: Visitor, watched: Store, name: str) -> None:
    """A queue of any name has its page, its JSON, its buttons and its dead letters behind the links."""
    send_tasks(watched, name, 3)
    whole = re.escape(quote(name, safe=""))
    page = link(ann.get("/queues").text, f"/queues/{whole}")
    assert ann.get(page).status == 200
    assert json.loads(ann.get(f"/api/millpond{page}").text)["ready"] == 3
    assert ann.post(link(ann.get(page).text, f"/queues/{whole}/pause"), []).status == 200
    assert limits.read_limits(watched, name).paused
    assert ann.post(link(ann.get(page).text, f"/queues/{whole}/resume"), []).status == 200
    assert not limits.read_limits(watched, name).paused


@pytest.mark.parametrize("name", NAMES)
def test_a_dead_letter_is_reached_whatever_its_queue_and_kind(
    ann: Visitor, watched: Store, name: str
) -> None:
    """The list of its queue and kind has the dead letter, its page shows it, and its button requeues it."""
    queue, kind = f"{name} dead", name.strip().replace("\x1b", "")  # which a kind may not have
    make_dead_letter(watched, queue, name, name, kind=kind, kwargs={})
    listed = ann.get(f"/dead?queue={quote(queue, safe='')}").text
    assert link(listed, r"/dead\?queue=.*&amp;reason=.*")
    of_kind = ann.get(link(listed, r"/dead\?queue=.*&amp;reason=.*")).text
    page = ann.get(link(of_kind, f"/dead/{re.escape(quote(queue, safe=''))}/[0-9]+-[0-9]+"))
    assert page.status == 200
    [id] = re.findall(r'name="id" value="([^"]+)"', page.text)
    assert (
        "1 dead letter requeued"
        in ann.post("/dead/requeue", [("id", unescape(id)), ("confirmed", "yes")]).text
    )
    assert (depth.read_depth(watched, queue).dead, depth.read_depth(watched, queue).ready) == (0, 1)
