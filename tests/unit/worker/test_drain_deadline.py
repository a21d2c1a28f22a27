"""The end of a process at its drain deadline."""

import os
from types import SimpleNamespace

import billiard
import pytest

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.tasks.settings import Settings
from millpond.worker.shutdown import Drain


@pytest.mark.parametrize("trouble", [ProcessLookupError(3, "No such process"), RuntimeError("changed size")])
def test_the_process_ends_at_its_deadline_in_spite_of_errors(
    monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """Neither a child that was reaped meanwhile nor a registry that changes meanwhile keeps it alive."""
    ended: list[int] = []

    def kill(_pid: int, _number: int) -> None:
        raise trouble

    children = [SimpleNamespace(pid=pid) for pid in (1_001, 1_002)]
    monkeypatch.setattr(billiard, "active_children", lambda: children)
    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "_exit", ended.append)
    drain = Drain(Settings(broker_url="redis://127.0.0.1:1/0"), InFlightMessages())
    drain.on_signal()
    drain.on_signal()
    assert drain._timer is not None
    drain._timer.join(10)
    assert ended == [0]
