"""A handler that shares the process may leave other functions in the `json` module."""

import json

import pytest

from millpond.broker import outcomes
from millpond.broker.message import Message
from millpond.broker.outgoing import compose


def test_what_is_written_of_a_task_does_not_depend_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes and messages are JSON although `json.dumps` and `json.loads` were replaced."""
    loads = json.loads
    monkeypatch.setattr(json, "dumps", lambda *_args, **_options: "<broken>")
    monkeypatch.setattr(json, "loads", lambda *_args, **_options: {"id": "another"})
    _action, _state, detail, *_rest = outcomes.encode_outcome(
        outcomes.DeadLetter("ValueError", "no", {"retries": 1})
    )
    assert loads(detail) == {"error": "no", "retries": 1}
    for outcome in (outcomes.Cancelled("asked to"), outcomes.PutAside("a.kind", "unknown", 1, False)):
        assert "error" in loads(outcomes.encode_outcome(outcome)[2])
    sent = compose("a.kind", {"text": "half \ud800"}, queue="default", sent_at_ms=1)
    message = Message.decode(sent.payload)
    assert (message.kind, message.arguments[1]) == ("a.kind", {"text": "half \ud800"})
    assert loads(str(message.for_next_run(due_ms=2, retries=1, shown="").text))["headers"]["retries"] == 1
