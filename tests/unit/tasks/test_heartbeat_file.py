"""The heartbeat files of processes, and the health that is judged by them."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from millpond.tasks.process.health import judge_health
from millpond.tasks.process.heartbeat_file import (
    SIZE,
    HeartbeatFile,
    ProcessState,
    boot_clock,
    read_heartbeats,
)
from millpond.tasks.process.paths import private_scratch_folder

pytestmark = pytest.mark.usefixtures("scratch")


def well(**changed: object) -> ProcessState:
    """Return the heartbeat of a healthy process, with the given changes."""
    at = boot_clock()
    heartbeat = ProcessState("email", 1, os.getpid(), 1, 1, "", at, at, at, True)
    return replace(heartbeat, **changed)  # type: ignore[arg-type]


def test_a_process_is_found_while_it_lives_and_its_file_keeps_its_size() -> None:
    """A process has one record, found by the service, its pid or its parent's, until it is removed."""
    file = HeartbeatFile("email", 1, expected=2)
    file.open()
    for answered in (None, boot_clock()):
        file.write(loop_at=boot_clock(), broker_answered_at=answered, has_lease=True)
    (path,) = private_scratch_folder().iterdir()
    assert path.stat().st_size == SIZE
    (found,) = read_heartbeats("email")
    assert found == file.heartbeat
    assert read_heartbeats("email", pid=os.getpid()) == read_heartbeats("email", pid=os.getppid()) == [found]
    assert read_heartbeats("files") == read_heartbeats("email", pid=1_000_000) == []
    file.remove()
    assert read_heartbeats("email") == []


def test_a_process_is_live_from_its_first_record_on() -> None:
    """A process whose event loop has not run yet is live, and not ready."""
    file = HeartbeatFile("email", 1)
    file.open()
    health = judge_health(read_heartbeats("email"))
    assert health.faults("live") == ()
    assert health.faults("ready") != ()
    file.remove()


def test_the_file_of_a_process_that_is_gone_is_not_believed() -> None:
    """The file of a process that was killed is removed, even if another process has its pid now."""
    file = HeartbeatFile("email", 1)
    file.open()
    (path,) = private_scratch_folder().iterdir()
    path.write_text(json.dumps(asdict(replace(file.heartbeat, started="1"))))
    assert read_heartbeats() == []
    assert not path.exists()
    assert judge_health(read_heartbeats()).faults("live") == ("no process of Millpond runs here",)


def test_what_is_no_record_is_passed_over() -> None:
    """Files that are no records, or are incomplete, are ignored."""
    private_scratch_folder().mkdir()
    (private_scratch_folder() / "email.1.7").write_text('{"service": "email"')
    (private_scratch_folder() / "note").write_text("[]")
    assert read_heartbeats() == []


@pytest.mark.parametrize(
    ("changed", "no"),
    [
        ({}, []),
        ({"written_at": 60.0}, ["live", "ready", "working"]),
        ({"loop_at": 60.0}, ["live", "ready", "working"]),
        ({"loop_at": 60.0, "draining": True}, ["ready", "working"]),
        ({"broker_answered_at": None}, ["ready", "working"]),
        ({"broker_answered_at": 0}, ["ready", "working"]),
        ({"broker_answered_at": 60.0}, ["ready", "working"]),
        ({"has_lease": False}, ["ready", "working"]),
        ({"expected": 2}, ["ready", "working"]),
        ({"stalled_since": 61.0}, ["working"]),
        ({"stalled_since": 30.0}, []),
        ({"stalled_since": 61.0, "stall_limit_seconds": 90.0}, []),
    ],
)
def test_each_fault_is_a_no_to_its_question_and_to_those_behind_it(
    changed: dict[str, object], no: list[str]
) -> None:
    """A fault that denies `live` denies `ready` and `working`, too. Times are ages in seconds."""
    ages = {name: boot_clock() - age for name, age in changed.items() if isinstance(age, float)}
    patience = {name: age for name, age in changed.items() if name == "stall_limit_seconds"}
    health = judge_health([well(**{**changed, **ages, **patience})])
    assert [question for question in ("live", "ready", "working") if health.faults(question)] == no


def test_a_process_that_starts_is_no_sign_of_a_broker_that_is_away() -> None:
    """Before its first request a process is said to have started; after a failed one, the broker is named."""
    (fault,) = judge_health([well(broker_answered_at=None)]).ready
    assert fault.endswith("has just started, and has asked its broker nothing yet")
    (fault,) = judge_health([well(broker_answered_at=0.0)]).ready
    assert fault.endswith("the broker does not answer")


def test_a_limit_of_no_time_is_a_limit() -> None:
    """`--within 0s` is no default: each heartbeat is older than that."""
    health = judge_health([well()], within_seconds=0.0)
    assert health.live
    assert health.ready


def test_a_folder_that_others_may_write_to_is_refused(scratch: Path) -> None:
    """A folder that others may write to is refused: another user could put a link into it."""
    private_scratch_folder().mkdir(parents=True)
    private_scratch_folder().chmod(0o777)
    with pytest.raises(PermissionError, match="others may write to it: chmod 700"):
        HeartbeatFile("email", 1).open()


def test_a_link_in_the_place_of_the_folder_is_not_followed(scratch: Path) -> None:
    """A link that another user made in place of the folder is refused. Its target is not changed."""
    elsewhere = scratch / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    victim = elsewhere / str(os.getpid())
    victim.write_text("{}")
    private_scratch_folder().symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="set MILLPOND_SCRATCH"):
        HeartbeatFile("email", 1).open()
    assert read_heartbeats() == []
    assert victim.read_text() == "{}"
    assert list(elsewhere.rglob("*")) == [victim]
