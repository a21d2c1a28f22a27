"""What is read from the files in which processes say how they are, and how it is judged."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from millpond.tasks.process.health import judge
from millpond.tasks.process.heartbeat_file import SIZE, Pulse, PulseFile, folder, now, pulses


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MILLPOND_SCRATCH", str(tmp_path))
    return tmp_path


def well(**changed: object) -> Pulse:
    """Return the pulse of a process that is well, but for what is changed."""
    at = now()
    pulse = Pulse("email", 1, os.getpid(), 1, 1, "", at, at, at, True)
    return replace(pulse, **changed)  # type: ignore[arg-type]


def test_a_process_is_found_while_it_lives_and_its_file_keeps_its_size() -> None:
    """One record a process, by service, by its id and by its parent's; gone when it is closed."""
    file = PulseFile("email", 1, of=2)
    file.open()
    for answered in (None, now()):
        file.say(turned_at=now(), answered_at=answered, leased=True)
    (path,) = folder().iterdir()
    assert path.stat().st_size == SIZE
    (found,) = pulses("email")
    assert found == file.pulse
    assert pulses("email", pid=os.getpid()) == pulses("email", pid=os.getppid()) == [found]
    assert pulses("files") == pulses("email", pid=1_000_000) == []
    file.close()
    assert pulses("email") == []


def test_a_process_is_live_from_its_first_record_on() -> None:
    """Before its loop has turned once it is not ready, and nobody is to kill it."""
    file = PulseFile("email", 1)
    file.open()
    health = judge(pulses("email"))
    assert health.faults("live") == ()
    assert health.faults("ready") != ()
    file.close()


def test_the_file_of_a_process_that_is_gone_is_not_believed() -> None:
    """Neither of one that was killed, nor where its id belongs to another by now; and it is removed."""
    file = PulseFile("email", 1)
    file.open()
    (path,) = folder().iterdir()
    path.write_text(json.dumps(asdict(replace(file.pulse, born="1"))))
    assert pulses() == []
    assert not path.exists()
    assert judge(pulses()).faults("live") == ("no process of it runs here",)


def test_what_is_no_record_is_passed_over() -> None:
    """A file that somebody else left or that is half written says nothing, and ends nothing."""
    folder().mkdir()
    (folder() / "email.1.7").write_text('{"service": "email"')
    (folder() / "note").write_text("[]")
    assert pulses() == []


@pytest.mark.parametrize(
    ("changed", "no"),
    [
        ({}, []),
        ({"said_at": 60.0}, ["live", "ready", "working"]),
        ({"turned_at": 60.0}, ["live", "ready", "working"]),
        ({"turned_at": 60.0, "draining": True}, ["ready", "working"]),
        ({"answered_at": None}, ["ready", "working"]),
        ({"answered_at": 60.0}, ["ready", "working"]),
        ({"leased": False}, ["ready", "working"]),
        ({"of": 2}, ["ready", "working"]),
        ({"waiting_since": 61.0}, ["working"]),
        ({"waiting_since": 30.0}, []),
        ({"waiting_since": 61.0, "patience_seconds": 90.0}, []),
    ],
)
def test_each_fault_is_a_no_to_its_question_and_to_those_behind_it(
    changed: dict[str, object], no: list[str]
) -> None:
    """Live before ready before working; times are ages in seconds."""
    ages = {name: now() - age for name, age in changed.items() if isinstance(age, float)}
    patience = {name: age for name, age in changed.items() if name == "patience_seconds"}
    health = judge([well(**{**changed, **ages, **patience})])
    assert [question for question in ("live", "ready", "working") if health.faults(question)] == no
