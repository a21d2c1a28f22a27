"""One guard stands before all of Flower: its host names, its logins and its sub-path hold for every page."""

import getpass
import re
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from flower.urls import handlers
from tornado.template import Template

from millpond.broker import audit
from millpond.broker.connection import Store
from millpond.monitor import formatting
from millpond.monitor.pages import dead, template_loader
from millpond.monitor.pages.routes import ROUTES
from tests.harness.flower_process import (
    LOGIN,
    Visitor,
    filled_path,
    make_dead_letter,
    run_flower,
    send_tasks,
)

#: Every path of Flower's and of ours, with something in its holes.
PATHS = sorted(
    {
        filled_path(pattern).removesuffix("/?")
        for pattern in (
            *(rule[0] if isinstance(rule, tuple) else rule.regex.pattern.rstrip("$") for rule in handlers),
            *(pattern for pattern, _, _ in ROUTES),
            "/static/css/flower.css",
            "/millpond/static/refresh.js",
        )
        if pattern != ".*"
    }
)
STRANGE, OTHER = "jörg:pässwörd €:%41", "jürgen:pässwort"


def status(url: str, path: str, **headers: str) -> int:
    """Return the status of a page for a request without a login, unless the headers have one."""
    return Visitor(url, login=None).get(path, **headers).status


def test_without_a_login_no_page_answers_to_a_foreign_name(public_flower_url: str) -> None:
    """Without a login, every page, API, metric and file is 403 under every name but loopback's."""
    assert len(PATHS) > 45
    url = public_flower_url
    port = urlsplit(url).port
    for path in PATHS:
        for name in (
            "evil.example.org",
            f"evil.example.org:{port}",
            "localhost.evil.org",
            "10.0.0.1",
            "",
        ):
            assert status(url, path, Host=name) == 403, (path, name)
    for name in (f"localhost:{port}", f"127.0.0.1:{port}", "[::1]", "127.8.9.1"):
        for path in ("/workers", "/queues", "/healthcheck", "/metrics", "/static/css/flower.css"):
            assert status(url, path, Host=name) in (200, 404), (path, name)
        assert status(url, "/workers", Host=name) == 200


def test_a_login_may_have_any_characters(pages_url: str, watched: Store) -> None:
    """A login outside ASCII is accepted by Flower's pages and ours, and audited; wrong ones are refused.

    Credentials that are not UTF-8 are read as Latin-1, as older browsers send them.
    """
    with run_flower(pages_url, flower_basic_auth=(STRANGE, LOGIN, OTHER)) as url:
        for page in ("/workers", "/queues", "/api/workers"):
            for login in (STRANGE, LOGIN):
                assert Visitor(url, login=login).get(page).status == 200, (page, login)
            for login in (
                "jörg:falsch",
                "jörg:pässwörd €:A",
                "j%C3%B6rg:x",
                "ann:sécret",
                "é",
                "ann:%73ecret",
            ):
                assert Visitor(url, login=login).get(page).status == 401, (page, login)
            for sent in (b"\xff\xfe:\xff", b"", b":"):
                header = f"Basic {b64encode(sent).decode()}"
                assert status(url, page, Authorization=header) == 401
            assert status(url, page, Authorization="Basic \xe9\xe9") == 401
        older = b64encode(OTHER.encode("latin-1")).decode()
        assert status(url, "/workers", Authorization=f"Basic {older}") == 200
        send_tasks(watched, "default", 1)
        jörg = Visitor(url, login=STRANGE)
        assert jörg.post("/queues/default/pause", []).status == 200
        assert jörg.post("/queues/default/resume", []).status == 200
        assert next(iter(audit.read_changes(watched, limit=1))).user.startswith("jörg by Flower")


def test_without_logins_nobody_chooses_the_name_in_the_audit(
    pages_url: str, watched: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without logins a change is audited under the account of Flower, whatever credentials a request has."""
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
    send_tasks(watched, "default", 1)
    with run_flower(pages_url, flower_basic_auth=()) as url:
        assert Visitor(url, login="the-director:x").post("/queues/default/pause", []).status == 200
        assert Visitor(url, login="the-director:x").post("/queues/default/resume", []).status == 200
    user = next(iter(audit.read_changes(watched, limit=1))).user
    assert user.startswith(f"{getpass.getuser()} by Flower")


@pytest.fixture(scope="module")
def sub_path_url(pages_url: str) -> Iterator[str]:
    """Run a Flower under the sub-path /ops/flower."""
    with run_flower(pages_url, flower_basic_auth=(LOGIN,), flower_url_prefix="/ops/flower/") as url:
        yield url


@pytest.mark.parametrize("kept", [True, False], ids=["proxy keeps the sub-path", "proxy strips it"])
def test_it_works_under_a_sub_path(sub_path_url: str, watched: Store, kept: bool) -> None:
    """Every link, form and file of every page is under the sub-path, and is there."""
    make_dead_letter(watched, "default", "a reason", "an error", kind="squares.square", kwargs={"n": "x"})
    seen: set[str] = set()
    ann = Visitor(sub_path_url)

    def through_the_proxy(path: str) -> str:
        return path if kept else path.removeprefix("/ops/flower") or "/"

    todo = {"/ops/flower/", "/ops/flower"}
    while todo:
        path = todo.pop()
        seen.add(path)
        answer = ann.get(through_the_proxy(path))
        assert answer.status == 200, path
        if "html" not in answer.headers["Content-Type"]:
            continue
        links = re.findall(r'(?:href|src|action|data-from)="([^"#]*)', answer.text)
        for link in {each.replace("&amp;", "&") for each in links if each and "://" not in each}:
            assert link.startswith("/ops/flower"), (path, link)
            if link.partition("?")[0] not in {each.partition("?")[0] for each in seen} and not re.search(
                r"/logout|/(pause|resume|limits|requeue|purge|cancel)$", link
            ):
                todo.add(link)
    assert {"/ops/flower/workers", "/ops/flower/queues", "/ops/flower/dead"} <= seen
    paused = ann._ask("POST", through_the_proxy("/ops/flower/queues/default/pause"), "", {})
    assert paused.status == 403, "without a token"
    assert any("/static/" in path for path in seen)
    assert any("/millpond/static/" in path for path in seen)


def test_chips_of_dead_letters_say_of_how_many() -> None:
    """Where fewer letters are counted than there are, the page has both numbers; else it has no such note."""
    text = (template_loader.TEMPLATES / "dead.html").read_text()
    start, end = text.index('<div id="reasons-live"'), text.index("</section>", text.index("reasons-live"))
    part = Template(text[start:end].rsplit("</div>", 1)[0] + "</div>")

    def shown(**values: object) -> str:
        return part.generate(
            reasons=[(("a.kind", "why"), 3)],
            filters={"queue": ""},
            formatting=formatting,
            reverse_url=lambda _name: "/dead",
            **{"counted": None, "more_reasons": 0, "total": 3, **values},
        ).decode()

    assert "Counted" not in shown()
    assert "Counted in the newest 1,000 that match, of 4,321" in shown(counted=dead.COUNTED, total=4321)
    assert "2 more are not shown" in shown(more_reasons=2)
