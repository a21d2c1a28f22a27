"""`millpond adopt` asks stock workers in an order in which a task that moves on meanwhile is not missed."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from millpond.monitor.cli import adopt
from millpond.tasks.errors import BadInput, BrokerAway, BrokerError

STATES = ("scheduled", "reserved", "active")

#: The reply of a worker whose command fails.
CANNOT_LIST = {"error": "ValueError('year 10000 is out of range')"}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("moves_after", STATES)
def test_a_task_that_moves_on_between_two_questions_is_a_workers(
    monkeypatch: pytest.MonkeyPatch, state: str, moves_after: str
) -> None:
    """A task that is received or started after the reply to any question is in one of the replies."""
    states = [state]

    def reply(question: str) -> dict[str, list[dict[str, Any]]]:
        task = {"id": "a task"}
        tasks = {"scheduled": {"request": task}}.get(question, task) if states[-1] == question else None
        if question == moves_after:
            states.append(STATES[min(STATES.index(states[-1]) + 1, 2)])
        return {"celery@a-host": [tasks] if tasks else []}

    reply_with(monkeypatch, reply)
    assert adopt._ids_of_worker_tasks() == {"a task"}


@pytest.mark.parametrize(
    ("state", "says"),
    [*((state, CANNOT_LIST) for state in STATES), ("reserved", None), ("active", None)],
)
def test_a_worker_that_does_not_list_its_tasks_is_named(
    monkeypatch: pytest.MonkeyPatch, state: str, says: dict[str, str] | None
) -> None:
    """Nothing is taken in: a worker that is there may have the tasks that it did not list."""
    replies: dict[str, Any] = {each: {"celery@a-host": []} for each in STATES}
    replies[state] = None if says is None else {"celery@a-host": says}
    reply_with(monkeypatch, replies.__getitem__)
    with pytest.raises(BadInput, match=r"worker celery@a-host .*(year 10000|no reply)"):
        adopt._ids_of_worker_tasks()


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (NoPermissionError("this user has no permissions to run the 'publish' command"), BrokerError),
        (RedisConnectionError("Connection refused"), BrokerAway),
        (None, BrokerError),
    ],
)
def test_a_broker_that_refuses_the_question_is_no_fault_of_millpond(
    monkeypatch: pytest.MonkeyPatch, cause: Exception | None, expected: type[Exception]
) -> None:
    """A user without a right to remote control, or a lost connection, is named in one line."""

    def refuse(_question: str) -> None:
        raise OperationalError(str(cause)) from cause

    reply_with(monkeypatch, refuse)
    with pytest.raises(BrokerError, match="asking the workers which tasks they have: ") as raised:
        adopt._ids_of_worker_tasks()
    assert raised.type is expected


def reply_with(monkeypatch: pytest.MonkeyPatch, reply: Callable[[str], Any]) -> None:
    """Reply to the questions of `adopt` in place of the workers."""
    inspect = SimpleNamespace(**{each: lambda each=each: reply(each) for each in STATES})
    app = SimpleNamespace(control=SimpleNamespace(inspect=lambda *_, **__: inspect))
    monkeypatch.setattr("millpond.tasks.app.celery_app", lambda _: app)
    monkeypatch.setattr("millpond.tasks.process.configured_broker.require_broker_url", lambda _: "redis://")
