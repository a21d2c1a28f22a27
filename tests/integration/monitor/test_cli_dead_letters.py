"""`millpond dead` finds, shows, requeues and drops dead letters by id, kind, reason, task and time."""

import json
from collections.abc import Callable

import pytest

from millpond import main
from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters, depth
from millpond.broker.keys import QueueKeys
from millpond.broker.outgoing import compose
from millpond.broker.server import server_time_ms

HOUR_MS = 3_600_000

#: Name, kind, reason, error, and the hours since the message became a dead letter; the oldest first.
LETTERS = (
    ("old", "squares.square", "failed", "ZeroDivisionError: by zero", 50),
    ("mail", "email.send", "failed", "SMTPRecipientsRefused: nobody@example.org", 5),
    ("killer", "squares.square", "too many deliveries", "too many deliveries", 2),
    ("new", "squares.square", "failed", "OSError: [Errno 28] no space left", 0),
)

FILTERS = {
    "": ["old", "mail", "killer", "new"],
    "--kind email.send": ["mail"],
    "--kind nothing.known": [],
    "--reason failed": ["old", "mail", "new"],
    "--reason deliveries": ["killer"],
    "--reason SMTPRecipientsRefused": ["mail"],
    "--reason [Errno": ["new"],
    "--task killer": ["killer"],
    "--since 3h": ["killer", "new"],
    "--before 3h": ["old", "mail"],
    "--since 2d --before 3h": ["mail"],
    "--since 30000d": ["old", "mail", "killer", "new"],
    "--before 30000d": [],
    "--kind squares.square --reason failed --since 1h": ["new"],
}


@pytest.fixture(autouse=True)
def _letters(store: Store, url: str, prefix: str, configure: Callable[[str, str], None]) -> None:
    """Make the dead letters, and point the commands at them."""
    configure(url, prefix)
    limits.declare_limits(store, "default", {}, authoritative=False)
    now = server_time_ms(store)
    for name, kind, reason, error, hours in LETTERS:
        died_ms = now - hours * HOUR_MS
        made = compose(kind, {"n": 1, "text": "s3cret"}, queue="default", sent_at_ms=died_ms, id=name)
        letter = {"message": made.payload, "reason": reason, "detail": json.dumps({"error": error})}
        store.client.xadd(
            QueueKeys("default", store.prefix).dead, {**letter, "deliveries": 1, "step": 0}, id=f"{died_ms}-0"
        )


def _run(capsys: pytest.CaptureFixture[str], command: str, code: int = 0) -> str:
    assert main(["dead", *command.split()]) == code
    return capsys.readouterr().out


def _left(store: Store) -> list[str]:
    return [letter.task_id for letter in dead_letters.read_dead_letters(store, "default")]


@pytest.mark.parametrize("filters", FILTERS)
def test_a_list_has_what_fits(filters: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every filter, alone and with others, lists the matching letters, as objects and as lines."""
    objects = [json.loads(line) for line in _run(capsys, f"list default {filters} --json").splitlines()]
    assert [each["task_id"] for each in objects] == FILTERS[filters]
    lines = _run(capsys, f"list default {filters}").splitlines()
    assert [line.split()[0] for line in lines] == [each["id"] for each in objects]


@pytest.mark.parametrize("filters", [each for each in FILTERS if each])
def test_matching_letters_are_requeued_and_the_others_stay(
    filters: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """A requeue by a filter sends the letters that the list with this filter has, on their queue."""
    chosen = FILTERS[filters]
    assert _run(capsys, f"requeue default {filters}") == f"default: {len(chosen)} requeued\n"
    assert _left(store) == [name for name, *_ in LETTERS if name not in chosen]
    assert depth.read_depth(store, "default").ready == len(chosen)


@pytest.mark.parametrize("filters", [each for each in FILTERS if each])
def test_matching_letters_are_dropped_and_the_others_stay(
    filters: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """A purge by a filter drops the letters that the list with this filter has, and sends nothing."""
    chosen = FILTERS[filters]
    printed = json.loads(_run(capsys, f"purge default {filters} --json"))
    assert printed == {"queue": "default", "purged": len(chosen)}
    assert _left(store) == [name for name, *_ in LETTERS if name not in chosen]
    assert depth.read_depth(store, "default").ready == 0


def test_one_is_shown_whole(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """`show` has the error, the reason and the arguments, except those that the contract hides."""
    mail = next(
        letter for letter in dead_letters.read_dead_letters(store, "default") if letter.task_id == "mail"
    )
    whole = _run(capsys, f"show default {mail.id}")
    assert "SMTPRecipientsRefused" in whole
    assert "s3cret" not in whole
    assert json.loads(_run(capsys, f"show default {mail.id} --json"))["task_id"] == "mail"


@pytest.mark.parametrize(
    "command",
    [
        "list default --since soon",
        "purge default",
        "purge default 1-1",
        "requeue default x",
        "show default x",
    ],
)
def test_an_impossible_command_is_one_line_and_changes_nothing(
    command: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong length of time, no selection, or an unknown id is one line, and nothing is changed."""
    assert main(["dead", *command.split()]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert len(_left(store)) == len(LETTERS)
