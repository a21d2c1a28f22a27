"""The second worker process that runs while `millpond why --probe --second-slot` measures."""

from types import SimpleNamespace
from typing import Any

import pytest

from millpond.monitor.cli import second_process


def test_a_pool_is_measured_once_it_has_one_slot_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first process that goes away meanwhile is not taken for the second one that has come."""
    counts = iter([1, 1, 0, 1, 2])
    process = SimpleNamespace(poll=lambda: None, terminate=lambda: None, wait=lambda _seconds: 0)
    monkeypatch.setattr(second_process, "count_slots", lambda *_: next(counts))
    monkeypatch.setattr(second_process, "sleep", lambda _seconds: None)
    monkeypatch.setattr(second_process.subprocess, "Popen", lambda *_, **__: process)
    store: Any = None
    with second_process.second_process(store, "email"):
        assert list(counts) == []
