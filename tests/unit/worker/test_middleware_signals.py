"""Middleware at the start and stop of a worker process."""

from types import SimpleNamespace

import pytest
from celery import signals

from millpond.tasks.middleware import Hooks, Middleware
from millpond.worker import middleware


class Noting(Middleware):
    """Notes its calls, and raises."""

    def __init__(self, calls: list[str], name: str) -> None:
        self.calls, self.name = calls, name

    def on_worker_start(self) -> None:
        self.calls.append(f"{self.name} starts")
        raise OSError("the database is away")

    def on_worker_stop(self) -> None:
        self.calls.append(f"{self.name} stops")
        raise OSError("already closed")


def test_a_worker_that_is_not_prepared_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Its tasks would be run unprepared. The log names the middleware; at a stop all are called."""
    app, calls = SimpleNamespace(), list[str]()
    middleware._connect_signals(app, Hooks([Noting(calls, "outer"), Noting(calls, "inner")]))  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as ended:
        signals.celeryd_after_setup.send(sender="default.1@here", instance=None, conf=None)
    assert ended.value.code == 1
    assert "Noting.on_worker_start failed, so this process ends" in caplog.text
    assert "OSError: the database is away" in caplog.text
    signals.worker_shutdown.send(sender=None)
    assert calls == ["outer starts", "inner stops", "outer stops"]
    assert caplog.text.count("Noting.on_worker_stop failed") == 2
