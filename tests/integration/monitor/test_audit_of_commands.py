"""Every command with an effect leaves one line: its user, the change, in the same words as by a page."""

import getpass
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from socket import gethostname

import pytest

from millpond import main
from millpond.broker import audit
from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters
from millpond.broker.outgoing import compose
from millpond.monitor.cli import adopt
from millpond.producer.client import Client
from millpond.tasks.squares.contract import Square
from tests.harness.flower_process import make_dead_letter


@dataclass(frozen=True)
class Names:
    """The objects to change: an open batch, a task that waits in it, two dead letters."""

    batch: str
    task: str
    letters: tuple[str, str]


@pytest.fixture
def names(
    store: Store, url: str, prefix: str, client: Client, configure: Callable[[str, str], None]
) -> Names:
    """Put the objects there, and point the commands at them."""
    configure(url, prefix)
    for _ in range(2):
        make_dead_letter(store, "default", "test", "it was told to", kind=Square.kind, kwargs={"n": 1})
    left = compose(Square.kind, {"n": 2}, queue="default", sent_at_ms=0)
    unacked = {"a tag": json.dumps([json.loads(left.payload), "", "default"])}
    store.client.hset(f"{prefix}unacked", mapping=unacked)
    store.client.zadd(f"{prefix}unacked_index", {"a tag": 1})
    batch = client.batch()
    waits = batch.send(Square(n=1), delay=timedelta(hours=1))
    first, second = (letter.id for letter in dead_letters.read_dead_letters(store, "default"))
    return Names(batch.id, waits.id, (first, second))


COMMANDS = {
    "task {task} --cancel": "cancelled task {task}",
    "task {task} --terminate": "terminated task {task}",
    "batch {batch} --close": "closed batch {batch}",
    "batch {batch} --cancel": "cancelled batch {batch}",
    "batch {batch} --terminate": "terminated batch {batch}",
    "drain default": "drained pool default",
    "queue set default --bound 70 --unset rate": "set the limits of queue default: bound 70, rate unset",
    "queue pause default": "paused queue default",
    "queue resume default": "resumed queue default",
    "dead requeue default {letter}": "requeued 1 dead letter of default",
    "dead requeue default --all": "requeued 2 dead letters of default",
    "dead purge default {letter}": "purged 1 dead letter of default",
    "dead purge default --kind squares.square": "purged 2 dead letters of default",
    "adopt --all default": "took in from stock workers: 1 messages",
    "adopt --back default": "handed back to stock workers: 1 messages",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_leaves_its_line(command: str, names: Names, store: Store) -> None:
    """A command that changes something leaves a line with its user, its host and the change."""
    known = {"task": names.task, "batch": names.batch, "letter": names.letters[0]}
    assert main(command.format(**known).split()) == 0
    [change] = audit.read_changes(store)
    assert change.action == COMMANDS[command].format(**known)
    assert change.user == f"{getpass.getuser()}@{gethostname()} by command"


def test_a_drained_pool_that_goes_on_leaves_its_line(names: Names, store: Store) -> None:
    """Resuming a pool is noted once: a second resume changes nothing and is not noted."""
    assert [main(["drain", "default"]), main(["resume", "default"]), main(["resume", "default"])] == [0] * 3
    assert [change.action for change in audit.read_changes(store)] == [
        "resumed pool default",
        "drained pool default",
    ]


def test_changes_before_a_refusal_are_noted(names: Names, store: Store) -> None:
    """When the second of two ids is unknown, the first is purged, and the purge is noted."""
    assert main(["dead", "purge", "default", names.letters[0], "1-1"]) == 2
    assert [change.action for change in audit.read_changes(store)] == ["purged 1 dead letter of default"]


@pytest.mark.parametrize("second_way", [["--kind", "squares.square"], ["--before", "30d"], ["--all"]])
def test_letters_that_are_named_in_two_ways_are_not_deleted(
    names: Names, store: Store, capsys: pytest.CaptureFixture[str], second_way: list[str]
) -> None:
    """Ids beside a filter or `--all` are refused in one line: one of them would have been ignored."""
    assert main(["dead", "purge", "default", names.letters[0], *second_way]) == 2
    assert "leave out the filters and --all, or the ids" in capsys.readouterr().err
    assert len(list(dead_letters.read_dead_letters(store, "default"))) == 2


@pytest.mark.parametrize(
    "command",
    ["queue set default --in-flight 5 --unset in-flight", "adopt --back --all", "adopt --back --all default"],
)
def test_options_that_contradict_each_other_are_refused(
    command: str, names: Names, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two options of which one would be ignored are refused in one line, and nothing changes."""
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert ("leave out one of them" in error, error.count("\n")) == (True, 1)
    assert list(audit.read_changes(store)) == []


def test_commands_that_only_look_leave_no_line(names: Names, store: Store) -> None:
    """Commands that only read, and changes that are refused, are not in the audit."""
    for command in ("status", "queue show default", "dead list default", f"batch {names.batch}", "batches"):
        assert main(command.split()) == 0, command
    assert main(["queue", "pause", "nobody"]) != 0
    assert main(["dead", "requeue", "default"]) != 0
    assert list(audit.read_changes(store)) == []


def test_adopting_what_is_not_there_is_said(
    names: Names, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adopting from an unknown queue is an error; adopting from an empty queue prints a sentence."""
    monkeypatch.setattr(adopt, "REPLY_SECONDS", 0.1)  # no worker runs
    assert main(["adopt", "--all"]) == 0
    assert capsys.readouterr().out.startswith("default: 1 taken in")
    assert main(["adopt", "defualt"]) == main(["adopt", "--back", "defualt"]) == 2
    assert capsys.readouterr().err.count("no queue is named 'defualt'") == 2
    assert main(["adopt"]) == 0
    assert capsys.readouterr().out == "stock workers left no message unacknowledged\n"
    assert main(["adopt", "default"]) == 0
    assert capsys.readouterr().out.startswith("default: 0 taken in")
