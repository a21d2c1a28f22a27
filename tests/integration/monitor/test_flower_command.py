"""`millpond flower` as a command: its login, its metrics, its port, and how it ends."""

from urllib.parse import urlsplit

from millpond.tasks.settings import Settings
from tests.harness.flower_process import Visitor, run_flower_process
from tests.harness.millpond_command import run_millpond


def test_it_serves_on_a_free_port_and_ends_when_told(url: str) -> None:
    """Port 0 takes a free port and prints it; metrics and liveness are there; SIGTERM ends Flower with 0."""
    chosen = Settings(broker_url=url)
    with run_flower_process(chosen) as (page, running):
        anybody = Visitor(page, login=None)
        assert urlsplit(page).hostname == "127.0.0.1"
        health = anybody.get("/healthcheck")
        assert (health.status, health.text) == (200, "OK")
        assert "# HELP flower_events_total" in anybody.get("/metrics").text
        taken = run_millpond(chosen, "flower", "--port", str(urlsplit(page).port))
        assert taken.returncode == 1
        assert "Try another --port" in taken.stderr
        running.terminate()
        assert running.wait(60) == 0


def test_with_a_login_nothing_is_shown_without_it(url: str) -> None:
    """Only a login of the settings or of the command line opens the pages."""
    chosen = Settings(broker_url=url, flower_basic_auth=("ann:secret",))
    with run_flower_process(chosen, "--basic-auth", "bob:builder") as (page, _):
        logins = (None, "ann:wrong", "ann:secret", "bob:builder")
        statuses = [Visitor(page, login=login).get("/workers").status for login in logins]
    assert statuses == [401, 401, 200, 200]


def test_without_a_login_it_changes_nothing(public_flower_url: str) -> None:
    """The part of Flower that stops workers and revokes tasks is closed without a login."""
    anybody = Visitor(public_flower_url, login=None)
    refused = anybody.post("/api/worker/shutdown/default.1@here", [], token=False)
    assert (refused.status, "without authentication" in refused.text) == (401, True)
