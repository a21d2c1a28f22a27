"""Periodic tasks: a period is sent once under any leader, and missed periods are reported."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest

from millpond.broker import limits, schedules, server
from millpond.broker.connection import Store, connect
from millpond.broker.inspect import depth
from millpond.broker.keys import QueueKeys, schedule_key, scheduler_key, step_of
from millpond.broker.message import Message as BrokerMessage
from millpond.producer.client import Client
from millpond.producer.scheduler import LEASE_SECONDS, Scheduler
from millpond.tasks.errors import SettingsError
from millpond.tasks.process.health import judge_health
from millpond.tasks.process.heartbeat_file import read_heartbeats
from millpond.tasks.schedule import ScheduleSettings
from millpond.tasks.settings import Settings, child_environment
from millpond.worker.local.embedded import embedded
from tests.conftest import Eventually

DAILY = {"daily": ScheduleSettings(kind="squares.square", fields={"n": 7}, every="1d")}
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, settings=Settings(broker_url=url)) as made:
        yield made


def yesterday(store: Store, days: int = 1, name: str = "daily") -> None:
    """Date a schedule's last firing to some days ago."""
    then = server.server_time_ms(store) // DAY_MS * DAY_MS - days * DAY_MS
    store.client.hset(schedule_key(name, ""), mapping={"since_ms": then - DAY_MS, "last_due_ms": then})


def sent(store: Store) -> list[str]:
    """Return the ids of the tasks on the queue, in the order in which they were sent."""
    messages = store.client.lrange(QueueKeys("default").ready[0], 0, -1)
    return [json.loads(message)["headers"]["id"] for message in reversed(messages)]


def test_a_new_schedule_waits_for_its_first_time(client: Client) -> None:
    """A schedule that was just added sends nothing for the time before it, and says when it will."""
    Scheduler(client, DAILY).tick()
    assert sent(client.store) == []
    (state,) = schedules.read_all_schedules(client.store)
    assert (state.name, state.kind, state.timing, state.queue) == (
        "daily",
        "squares.square",
        "every 1d",
        "default",
    )
    assert 0 < state.next_due_ms - server.server_time_ms(client.store) <= DAY_MS


def test_a_period_is_sent_once_even_by_two_leaders(client: Client) -> None:
    """Two leaders send a period once, by the period's id, even if the first was killed before it noted it."""
    store = client.store
    yesterday(store)
    before = store.client.hgetall(schedule_key("daily", ""))
    Scheduler(client, DAILY).tick()
    store.client.delete(scheduler_key(""))
    store.client.hset(schedule_key("daily", ""), mapping=before)  # killed before it could note it
    Scheduler(client, DAILY).tick()
    today = datetime.now(UTC).date()
    assert sent(store) == [f"daily@{today}T00:00:00+00:00"]
    (state,) = schedules.read_all_schedules(store)
    assert (state.last_due_ms, state.missed) == (server.server_time_ms(store) // DAY_MS * DAY_MS, 0)


def test_a_period_is_sent_with_the_options_of_its_schedule(client: Client) -> None:
    """A scheduled task has the priority and the expiry of its schedule."""
    yesterday(client.store)
    urgent = DAILY["daily"].model_copy(update={"priority": 6, "expires": timedelta(hours=1)})
    Scheduler(client, {"daily": urgent}).tick()
    (text,) = client.store.client.lrange(QueueKeys("default").ready[step_of(6)], 0, -1)
    message = BrokerMessage.decode(text)
    assert message.expires_ms is not None
    assert 0 < message.expires_ms - server.server_time_ms(client.store) <= 3_600_000


def test_a_scheduler_that_does_not_lead_sends_nothing(client: Client) -> None:
    """The second scheduler waits while the first leads, and leads once the first resigns."""
    first, second = Scheduler(client, DAILY), Scheduler(client, DAILY)
    first.tick()
    yesterday(client.store)
    second.tick()
    assert (sent(client.store), schedules.read_leader(client.store)) == ([], first.name)
    schedules.give_up_lead(client.store, first.name)
    second.tick()
    assert (len(sent(client.store)), schedules.read_leader(client.store)) == (1, second.name)


def test_of_missed_periods_the_last_is_sent_and_the_others_counted(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """After four days without a scheduler one task is sent, and three periods are counted as missed."""
    yesterday(client.store, days=4)
    with caplog.at_level("INFO"):
        Scheduler(client, DAILY).tick()
    assert len(sent(client.store)) == 1
    assert schedules.read_all_schedules(client.store)[0].missed == 3
    assert "the 3 periods before it were missed" in caplog.text


def test_a_full_queue_delays_a_period_and_loses_none(client: Client) -> None:
    """With no room the period stays due, with the reason; with room it is sent."""
    store = client.store
    yesterday(store)
    client.send(("squares.square", {"n": 1}))
    limits.change_limits(store, "default", bound=1)
    scheduler = Scheduler(client, DAILY)
    scheduler.tick()
    assert "full" in schedules.read_all_schedules(store)[0].trouble
    limits.change_limits(store, "default", bound=2)
    scheduler.tick()
    assert len(sent(store)) == 2
    assert schedules.read_all_schedules(store)[0].trouble == ""


def test_a_schedule_that_fails_stops_no_other(client: Client) -> None:
    """An error of one task, here of its length, is the trouble of its schedule; the others are sent."""
    store = client.store
    for name in ("daily", "other"):
        yesterday(store, name=name)
    limits.declare_limits(store, "short", {"message_bytes": 10}, authoritative=True)
    too_long = DAILY["daily"].model_copy(update={"queue": "short"})
    Scheduler(client, {"daily": too_long, "other": DAILY["daily"]}).tick()
    troubles = {state.name: state.trouble for state in schedules.read_all_schedules(store)}
    assert "is too long" in troubles["daily"]
    assert troubles["other"] == ""
    assert [id.partition("@")[0] for id in sent(store)] == ["other"]


def test_a_schedule_that_cannot_be_sent_is_refused_at_the_start(client: Client) -> None:
    """Wrong fields of a schedule end the scheduler at its start, not at the firing."""
    with pytest.raises(SettingsError, match=r"schedule 'bad': squares\.square does not"):
        Scheduler(client, {"bad": ScheduleSettings(kind="squares.square", fields={"m": 1}, every="1h")})


@pytest.mark.slow
def test_millpond_up_sends_periodic_tasks(eventually: Eventually) -> None:
    """The embedded set-up runs a scheduler beside its pools, and stops it first."""
    chosen = Settings(
        schedule={"tick": {"kind": "squares.square", "fields": {"n": 1}, "every": "1s"}}, drain_seconds=5
    )
    with embedded(chosen, pools=["default"], scheduler=True) as running:
        store = connect(running.url)
        eventually(lambda: depth.read_depth(store, "default").counters.get("settled", 0) >= 2, 30)
        assert "scheduler" in running.pids
        store.close()


@pytest.mark.slow
def test_another_takes_over_from_a_leader_that_is_killed(
    url: str, tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the leader of three schedulers is killed, another leads within its lease.

    No period is sent twice, and those that passed meanwhile are counted.
    """
    monkeypatch.setenv("MILLPOND_SCRATCH", str(tmp_path))
    chosen = Settings(
        broker_url=url, schedule={"tick": {"kind": "squares.square", "fields": {"n": 1}, "every": "1s"}}
    )
    store = connect(url)
    running = [_scheduler(chosen, tmp_path / f"log-{n}") for n in range(3)]
    try:
        for _ in range(2):
            leader = eventually(lambda: schedules.read_leader(store), 30)
            eventually(lambda: _fired(store) >= 3, 30)
            assert not judge_health(read_heartbeats("scheduler")).faults("working")
            os.kill(int(leader.split(":")[1]), signal.SIGKILL)
            killed_at, fired = monotonic(), _fired(store)
            eventually(
                lambda before=leader: schedules.read_leader(store) not in (None, before), 2 * LEASE_SECONDS
            )
            assert monotonic() - killed_at < LEASE_SECONDS + 3
            eventually(lambda before=fired: _fired(store) >= before + 3, 30)
    finally:
        for process in running:
            process.terminate()
        codes = [process.wait(60) for process in running]
    assert sorted(codes) == [-9, -9, 0]
    assert schedules.read_leader(store) is None
    _each_second_once_or_missed(store)
    store.close()


def _each_second_once_or_missed(store: Store) -> None:
    ids = sent(store)
    assert len(ids) == len(set(ids))
    seconds = [datetime.fromisoformat(id.partition("@")[2]).timestamp() for id in ids]
    assert seconds == sorted(seconds)
    (state,) = schedules.read_all_schedules(store)
    skipped = int(seconds[-1] - seconds[0]) + 1 - len(seconds)
    assert (state.fired, state.missed) == (len(ids), skipped)


def _fired(store: Store) -> int:
    return sum(state.fired for state in schedules.read_all_schedules(store))


def _scheduler(settings: Settings, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as sink:
        argv = [sys.executable, "-m", "millpond", "scheduler"]
        return subprocess.Popen(argv, env=child_environment(settings), stdout=sink, stderr=sink)


def test_a_scheduler_is_told_to_stop(client: Client) -> None:
    """A scheduler that stops gives up its lease, so the next leader need not wait for it."""
    stop, ready = threading.Event(), threading.Event()
    scheduler = Scheduler(client, DAILY, ready.set)
    thread = threading.Thread(target=scheduler.run, args=(stop,))
    thread.start()
    assert ready.wait(60)
    assert schedules.read_leader(client.store) == scheduler.name
    stop.set()
    thread.join(60)
    assert schedules.read_leader(client.store) is None


def test_a_broker_that_is_away_at_the_start_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """A scheduler that cannot reach its broker says so at its first attempt, and not at every one."""
    away = "redis://127.0.0.1:1/0"
    with Client(away, settings=Settings(broker_url=away)) as client:
        scheduler = Scheduler(client, DAILY)
        for _ in range(3):
            scheduler._tick_safely()
    (line,) = caplog.messages
    assert "the broker cannot be reached" in line
    assert line.endswith("Trying again every second.")
