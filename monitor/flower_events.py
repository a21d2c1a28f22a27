"""Receive Celery's events for Flower's own pages with less than half of Flower's CPU time.

Flower indexes a task at every event and wakes its event loop for each event. Here changed tasks are indexed
before a search, and the loop is woken once for all events that have arrived.
"""

import time
from collections import deque
from typing import Any

from flower.events import Events
from flower.utils.search import SearchPage, TaskSearchEngine

#: The time for which the loop processes events before it serves pages again, seconds.
TURN_SECONDS = 0.02


class LazySearch(TaskSearchEngine):
    """Flower's index of tasks, which adds changed tasks only when a search needs them."""

    def __init__(self) -> None:
        super().__init__()
        self._changed: dict[str, Any] = {}

    def upsert(self, task: Any) -> None:
        """Keep a new or changed task, to index it before the next search."""
        self._changed[task.uuid] = task

    def remove(self, task_id: str) -> None:
        """Remove a task."""
        self._changed.pop(task_id, None)
        super().remove(task_id)

    def rebuild(self, tasks: Any) -> None:
        """Index exactly these tasks."""
        self._changed.clear()
        super().rebuild(tasks)

    def search(self, *args: Any, **kwargs: Any) -> SearchPage:
        """Index the changed tasks, then search as Flower does."""
        changed, self._changed = self._changed, {}
        for task in changed.values():
            super().upsert(task)
        return super().search(*args, **kwargs)


class BufferedEvents(Events):
    """Flower's event receiver, which wakes the event loop once for many events."""

    state: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.state.search_engine = LazySearch()
        self._waiting: deque[dict[str, Any]] = deque()
        self._is_scheduled = False

    def on_event(self, event: dict[str, Any]) -> None:
        """Buffer an event for the loop. The receiving thread calls this."""
        self._waiting.append(event)
        if not self._is_scheduled:
            self._schedule_processing()

    def _schedule_processing(self) -> None:
        self._is_scheduled = True
        self.io_loop.add_callback(self._process_buffered)

    def _process_buffered(self) -> None:
        """Process buffered events for `TURN_SECONDS`. Schedule another call if some are left."""
        self._is_scheduled = False
        deadline = time.monotonic() + TURN_SECONDS
        try:
            while self._waiting and time.monotonic() < deadline:
                self.state.event(self._waiting.popleft())
        finally:
            if self._waiting and not self._is_scheduled:
                self._schedule_processing()
