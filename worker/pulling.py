"""Let the threads of a pool take their tasks themselves from those that wait.

Celery's pool of threads makes a future of each task, hands it over and wakes a thread up. Here a thread that
is done takes the next task that waits; one is woken only for a slot that had nothing to do.
"""

import logging
import threading
from collections import deque
from concurrent.futures import Executor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.request import PondRequest

logger = logging.getLogger(__name__)


class Pull:
    """Keep the requests that wait for a thread; at most `slots` threads of the executor work on them."""

    def __init__(self, executor: Executor, slots: int) -> None:
        self._executor = executor
        self._slots = slots
        self._waiting: deque[PondRequest] = deque()
        self._at_work = 0
        self._lock = threading.Lock()

    def put(self, request: "PondRequest") -> None:
        """Let a thread run a request, as soon as one is free."""
        self._waiting.append(request)
        with self._lock:
            if self._at_work >= self._slots:
                return
            self._at_work += 1
        self._executor.submit(self._work)

    def _work(self) -> None:
        while True:
            try:
                request = self._waiting.popleft()
            except IndexError:
                with self._lock:
                    if self._waiting:
                        continue
                    self._at_work -= 1
                    return
            try:
                request.run_in_thread()
            except Exception:
                logger.exception("Task %s[%s] could not be settled", request.name, request.id)
