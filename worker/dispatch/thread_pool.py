"""A thread pool whose threads take their tasks themselves from those that wait.

Celery's pool of threads makes a future of each task and passes it on. Here a thread that is done takes the
next task that waits, and returns to the pool if there was none for a moment. It pauses while many outcomes
are not sent to the broker yet. Otherwise threads with short tasks would keep the interpreter from the event
loop until nothing is left to run, and would run all fetched tasks while the broker is unreachable.
"""

import logging
import threading
from concurrent.futures import Executor
from contextlib import suppress
from queue import Empty, SimpleQueue

from billiard.einfo import ExceptionInfo

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.worker.dispatch.slot_request import SlotRequest

logger = logging.getLogger(__name__)

#: How long a thread waits for the next task before it returns to the pool, in seconds.
LINGER_SECONDS = 0.05

#: After how long a thread that is far ahead looks again whether the pool ends, in seconds.
LOOK_SECONDS = 0.05


class ThreadSlots:
    """The requests that wait for a thread. At most `slots` threads of the executor run them."""

    def __init__(self, executor: Executor, slots: int, in_flight: InFlightMessages) -> None:
        self._executor = executor
        self._in_flight = in_flight
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
        self._executor.submit(self._run_waiting)

    def reclaim_unstarted(self) -> list[SlotRequest]:
        """Remove all requests that wait for a thread, and return them, the oldest first."""
        taken: list[SlotRequest] = []
        with suppress(Empty):
            while True:
                taken.append(self._waiting.get_nowait())
        return taken

    def _run_waiting(self) -> None:
        """Run requests until none has come for `LINGER_SECONDS`. The loop of one thread."""
        while (request := self._next_request()) is not None:
            try:
                request.run_in_thread()
                if self._in_flight.is_far_ahead:
                    self.wait_for_backlog()
            except BaseException:  # a task's SystemExit is no reason for a thread of a pool to end
                with suppress(BaseException):  # else it would be held as long as this process lives
                    request.redeliver(ExceptionInfo())
                with suppress(BaseException):  # formatting a traceback may raise, and the thread must go on
                    logger.exception("Task %s[%s] could not be settled", request.name, request.id)

    def wait_for_backlog(self) -> None:
        """Wait until outcomes were sent to the broker, or the process ends."""
        in_flight = self._in_flight
        while in_flight.is_far_ahead and not in_flight.draining and threading.main_thread().is_alive():
            in_flight.outcomes_taken.clear()
            if in_flight.is_far_ahead:
                in_flight.outcomes_taken.wait(LOOK_SECONDS)

    def _next_request(self) -> SlotRequest | None:
        """Return the next request, or None if none came for `LINGER_SECONDS`."""
        while True:
            try:
                return self._waiting.get(timeout=LINGER_SECONDS)
            except Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._at_work -= 1
                        return None
