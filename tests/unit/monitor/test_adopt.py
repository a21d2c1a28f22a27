"""`millpond adopt` asks stock workers in an order in which a task that moves on meanwhile is not missed."""

from types import SimpleNamespace
from typing import Any

import pytest

from millpond.monitor.cli import adopt

STATES = ("scheduled", "reserved", "active")


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

    inspect = SimpleNamespace(**{each: lambda each=each: reply(each) for each in STATES})
    app = SimpleNamespace(control=SimpleNamespace(inspect=lambda *_, **__: inspect))
    monkeypatch.setattr("millpond.tasks.app.celery_app", lambda _: app)
    monkeypatch.setattr("millpond.tasks.process.configured_broker.require_broker_url", lambda _: "redis://")
    assert adopt._ids_of_worker_tasks() == {"a task"}
