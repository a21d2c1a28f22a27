"""Flower's own tasks page, fed by a listener that takes events many at a time."""

import time
from collections.abc import Callable
from typing import Any

from flower.events import EventsState
from flower.options import options
from flower.utils.search import TaskSearchEngine

from millpond.monitor import flower_events
from millpond.monitor.flower_events import BufferedEvents, LazySearch
from millpond.tasks.app import celery_app
from millpond.tasks.settings import Settings

TYPES = ("task-received", "task-started", "task-succeeded")


class Loop:
    """Keep the functions that are to be called."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def add_callback(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        """Call each callback so far once."""
        due, self.calls = self.calls, []
        for call in due:
            call()


def events(name: str) -> list[dict[str, Any]]:
    about = {"uuid": name, "hostname": "w@here", "utcoffset": 0, "pid": 1, "local_received": time.time()}
    more = {"task-received": {"name": f"kind.{name}", "args": "()", "kwargs": f"{{'n': '{name}'}}"}}
    return [
        {**about, "type": type_, "timestamp": time.time(), "clock": clock, **more.get(type_, {})}
        for clock, type_ in enumerate(TYPES)
    ]


def test_a_search_finds_what_flowers_own_finds() -> None:
    """By name, state and argument, whatever was searched before, without forgotten tasks."""
    assert options.max_tasks
    state = EventsState(max_tasks_in_memory=2)
    state.search_engine = LazySearch()
    for event in [*events("first"), *events("second")[:2]]:
        state.event(event)
    for query in ("kind", "state:SUCCESS", "kwargs:n=second"):
        own = TaskSearchEngine()
        own.rebuild(state.tasks.items())
        found = state.search_engine.search(state.tasks, query)
        assert (found, bool(found.task_ids)) == (own.search(state.tasks, query), True)
    for event in [events("second")[2], *events("third")]:
        state.event(event)
    found = state.search_engine.search(state.tasks, "state:SUCCESS")
    assert sorted(found.task_ids) == ["second", "third"]
    assert state.search_engine.search(state.tasks, "kind.first").task_ids == []
    state.clear_tasks()
    assert state.search_engine.search(state.tasks).total_count == 0


def test_the_loop_is_called_once_for_many_events_and_goes_on_after_a_bad_one(monkeypatch: Any) -> None:
    """One call for all that came; nothing is left behind by an event that is none, or by a long turn."""
    monkeypatch.setattr(flower_events, "TURN_SECONDS", 60.0)  # a busy machine ends no turn before its events
    loop = Loop()
    heard = BufferedEvents(celery_app(Settings()), loop, max_tasks_in_memory=100)
    gathered = [event for n in range(5) for event in events(f"task-{n}")]
    for event in [*gathered[:3], {"type": "task-received", "hostname": "w@here"}, *gathered[3:]]:
        heard.on_event(event)
    assert len(loop.calls) == 1
    try:
        loop.turn()
    except KeyError:
        loop.turn()
    assert [task.state for task in heard.state.tasks.values()] == ["SUCCESS"] * 5
    monkeypatch.setattr(flower_events, "TURN_SECONDS", -1.0)
    heard.on_event(events("late")[0])
    loop.turn()
    assert ("late" in heard.state.tasks, len(loop.calls)) == (False, 1)
    monkeypatch.setattr(flower_events, "TURN_SECONDS", 60.0)
    loop.turn()
    assert ("late" in heard.state.tasks, loop.calls) == (True, [])
