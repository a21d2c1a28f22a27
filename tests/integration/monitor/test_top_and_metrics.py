"""The pages' figures in the terminal: `millpond top` and `millpond metrics`."""

import os
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

import millpond
from millpond.broker import audit
from millpond.broker.connection import Store, connect
from millpond.broker.inspect import dead_letters
from millpond.monitor.cli import top
from millpond.tasks.settings import settings
from tests.harness.flower_process import PREFIX, make_dead_letter, send_tasks
from tests.harness.forked_commands import ForkedCommands


@pytest.fixture(autouse=True)
def configured(
    configure: Callable[[str, str], None], pages_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Point the commands at the database of the tests."""
    configure(pages_url, PREFIX)
    monkeypatch.setenv("COLUMNS", "140")


def test_top_shows_queues_pools_and_who_changed_what(
    watched: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """`top` has every queue with its ready messages, every pool, and the latest change with its author."""
    send_tasks(watched, "on-top", 12)
    audit.record_change(watched, "ann", "looked at the top")
    assert millpond.main(["top", "--once"]) == 0
    shown = capsys.readouterr().out
    [line] = [line for line in shown.splitlines() if line.startswith("on-top")]
    assert "12" in line.split()
    assert "no worker" in line
    assert "ann: looked at the top" in shown
    assert "email" in shown


def test_top_goes_on_where_the_server_refuses_for_a_while(watched: Store, pages_url: str) -> None:
    """A refusal of the server, as by a busy or loading one, is shown on the screen, and `top` looks again."""
    watched.client.acl_setuser("blind", enabled=True, nopass=True, keys=["*"], commands=["-@all", "+hello"])
    try:
        parts = urlsplit(pages_url)
        refused = connect(f"redis://blind:none@{parts.hostname}:{parts.port}{parts.path}", prefix=PREFIX)
        shown = str(top._screen_or_error(refused, settings().table, 140))
    finally:
        watched.client.acl_deluser("blind")
    assert "no permissions" in shown
    assert shown.endswith("Looking again …")


def test_top_looks_once_where_nobody_can_watch(watched: Store, commands: ForkedCommands) -> None:
    """Into a pipe `top` writes one snapshot and ends."""
    send_tasks(watched, "on-top", 12)
    piped = commands.run(["top"], os.environ)
    assert (piped.returncode, "on-top" in piped.stdout) == (0, True)


@pytest.mark.parametrize(("command", "count"), [(["top", "--once"], 1_234), (["status"], 2_345)])
def test_a_long_name_leaves_the_figures_whole(
    watched: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    count: int,
) -> None:
    """In a terminal of 80 columns a long name is folded; the ready messages and the state are not cut."""
    monkeypatch.setenv("COLUMNS", "80")
    send_tasks(watched, f"{command[0]}-queue-of-a-department-" * 3, count)
    assert millpond.main(command) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if f"{count:,}" in line]
    assert line.rstrip().endswith("no worker")


def test_a_hostile_name_does_not_steer_the_terminal(
    watched: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Marks of a terminal in a queue's name, an error or an audit line are shown, not obeyed."""
    hostile = "[/bold]\x1b]0;owned\x07\n"
    send_tasks(watched, f"q{hostile}", 1)
    make_dead_letter(watched, "steered", hostile, hostile, kind="squares.square", kwargs={"n": hostile})
    audit.record_change(watched, hostile, hostile)
    [letter] = dead_letters.read_dead_letters(watched, "steered")
    for command in (["top", "--once"], ["status"], ["dead", "list", "steered"], ["dead", "show", "steered"]):
        given = [*command, letter.id] if command[:2] == ["dead", "show"] else command
        assert millpond.main(given) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown, command
        assert "[/bold]?]0;owned??" in shown, command


def test_the_command_writes_the_metrics_that_flower_serves(
    watched: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """`millpond metrics` has the queue's depth, by the name and label that Prometheus gets."""
    send_tasks(watched, "counted", 4)
    assert millpond.main(["metrics"]) == 0
    assert 'millpond_queue_ready{queue="counted"} 4.0' in capsys.readouterr().out
