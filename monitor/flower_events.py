"""Take in Celery's events for Flower's own pages at half of what Flower takes for it.

Flower indexes a task anew at every event, whether or not anybody searches, and wakes its event loop for each.
Here a task is indexed when somebody searches, and the loop is woken for all events that have come by then.
"""

import time
from collections import deque
from typing import Any

from flower.events import Events, EventsState
from flower.utils.search import SearchPage, TaskSearchEngine

#: How long the loop takes events before it looks after the pages again, in seconds.
TURN_SECONDS = 0.02


class LazySearch(TaskSearchEngine):
    """Flower's index of tasks, made up to date when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self._changed: dict[str, Any] = {}

    def upsert(self, task: Any) -> None:
        """Note that a task is new, or has changed."""
        self._changed[task.uuid] = task

    def remove(self, task_id: str) -> None:
        """Forget a task."""
        self._changed.pop(task_id, None)
        super().remove(task_id)

    def rebuild(self, tasks: Any) -> None:
        """Index these tasks and no others."""
        self._changed.clear()
        super().rebuild(tasks)

    def search(self, *args: Any, **kwargs: Any) -> SearchPage:
        """Search as Flower does, in what is known by now."""
        changed, self._changed = self._changed, {}
        for task in changed.values():
            super().upsert(task)
        return super().search(*args, **kwargs)


class GatheredState(EventsState):
    """Flower's memory of tasks and workers, with an index that waits for somebody to search."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.search_engine = LazySearch()


class GatheredEvents(Events):
    """Flower's listener, which hands events over many at a time."""

    state: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = self.state
        self.state = GatheredState(
            max_workers_in_memory=known.max_workers_in_memory, max_tasks_in_memory=known.max_tasks_in_memory
        )
        self._waiting: deque[dict[str, Any]] = deque()
        self._is_called = False

    def on_event(self, event: dict[str, Any]) -> None:
        """Keep an event for the loop; called by the thread that listens."""
        self._waiting.append(event)
        if not self._is_called:
            self._call()

    def _call(self) -> None:
        self._is_called = True
        self.io_loop.add_callback(self._take)

    def _take(self) -> None:
        """Take what waits, for a while at a time; whatever comes once the flag is down calls again."""
        self._is_called = False
        until = time.monotonic() + TURN_SECONDS
        try:
            while self._waiting and time.monotonic() < until:
                self.state.event(self._waiting.popleft())
        finally:
            if self._waiting and not self._is_called:
                self._call()
