"""A thread pool whose threads take their tasks themselves from those that wait.

Celery's pool of threads makes a future of each task and hands it over. Here a thread that is done takes the
next task that waits, and goes back to the pool when there was none for a moment.
"""

import logging
import threading
from concurrent.futures import Executor
from contextlib import suppress
from queue import Empty, SimpleQueue

from billiard.einfo import ExceptionInfo

from millpond.worker.dispatch.slot_request import SlotRequest

logger = logging.getLogger(__name__)

#: How long a thread waits for the next task before it goes back to the pool, in seconds.
LINGER_SECONDS = 0.05


class ThreadSlots:
    """The requests that wait for a thread; at most `slots` threads of the executor work on them."""

    def __init__(self, executor: Executor, slots: int) -> None:
        self._executor = executor
        self._slots = slots
        self._waiting: SimpleQueue[SlotRequest] = SimpleQueue()
        self._at_work = 0
        self._lock = threading.Lock()

    def put(self, request: SlotRequest) -> None:
        """Run a request in a thread, as soon as one is free."""
        self._waiting.put(request)
        with self._lock:
            if self._at_work >= self._slots:
                return
            self._at_work += 1
        self._executor.submit(self._work)

    def _work(self) -> None:
        while (request := self._next()) is not None:
            try:
                request.run_in_thread()
            except BaseException:  # a task's SystemExit is no reason for a thread of a pool to end
                logger.exception("Task %s[%s] could not be settled", request.name, request.id)
                with suppress(Exception):  # else it would be held as long as this process lives
                    request.redeliver(ExceptionInfo())

    def _next(self) -> SlotRequest | None:
        while True:
            try:
                return self._waiting.get(timeout=LINGER_SECONDS)
            except Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._at_work -= 1
                        return None
