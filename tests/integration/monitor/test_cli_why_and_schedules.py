"""`millpond why` and `millpond schedules`: their output in words, as JSON, and for unknown names."""

import json
from collections.abc import Callable

import pytest

from millpond import main
from millpond.broker import schedules, server
from millpond.broker.connection import Store
from millpond.broker.keys import schedule_key
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.producer.client import Client
from millpond.producer.scheduler import Scheduler
from millpond.tasks.schedule import ScheduleSettings
from millpond.tasks.settings import settings

DAY_MS = 24 * 3600 * 1000
DAILY = {"daily": ScheduleSettings(kind="squares.square", fields={"n": 7}, every="1d")}


@pytest.fixture(autouse=True)
def _here(url: str, prefix: str, configure: Callable[[str, str], None]) -> None:
    """Point the commands at the server of this test."""
    configure(url, prefix)


def test_why_names_every_pool_and_says_what_to_do(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """For a queue with tasks and no worker, `why` gives the command that starts a worker."""
    publish(store, [compose("squares.square", {"n": 1}, queue="default", sent_at_ms=0)])
    assert main(["why"]) == 0
    said = capsys.readouterr().out
    assert [line.partition(":")[0] for line in said.splitlines() if line[0] != " "] == list(
        settings().table.pools
    )
    assert "millpond worker default" in said


def test_a_pool_that_cannot_be_measured_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    """`--probe` measures, or prints why not; a second slot is for a running pool of one slot."""
    assert main(["why", "email", "--probe"]) == 0
    assert "Pool email is not measured: no process of it runs." in capsys.readouterr().err
    assert main(["why", "email", "--probe", "--second-slot"]) != 0
    assert "email has 0" in capsys.readouterr().err


def test_why_of_one_pool_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """`why POOL --json` is one object."""
    assert main(["why", "email", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["pool"], verdict.keys() >= {"state", "why", "advice"}) == ("email", True)


def test_schedules_are_listed_with_their_times(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Each schedule has its last firing, its missed firings and its next one; the leader is named."""
    today = server.server_time_ms(store) // DAY_MS * DAY_MS
    then = today - 4 * DAY_MS
    key = store.prefix + schedule_key("daily", "")
    store.client.hset(key, mapping={"since_ms": then - DAY_MS, "last_due_ms": then})
    with Client(settings=settings()) as client:
        scheduler = Scheduler(client, DAILY)
        scheduler.tick()
        assert main(["schedules"]) == 0
        listed, leader = capsys.readouterr().out.splitlines()
        assert listed.startswith("daily  squares.square  every 1d  last 20")
        assert listed.endswith("  1 sent, 3 missed")
        assert leader == f"leader: {scheduler.name}"
        assert main(["schedules", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert (printed["name"], printed["last_due_ms"], printed["leader"]) == (
            "daily",
            today,
            scheduler.name,
        )
        schedules.give_up_lead(store, scheduler.name)


def test_no_scheduler_is_said_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Without schedules, `millpond schedules` has one line: the command that starts a scheduler."""
    assert main(["schedules"]) == 0
    assert capsys.readouterr().out == "leader: none runs; start one with `millpond scheduler`\n"
