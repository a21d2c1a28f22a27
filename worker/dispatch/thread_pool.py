"""The slots of a pool of threads: each thread takes the next waiting task from one queue.

Celery's pool of threads makes a future of each task. Here a thread that has ended a task takes the next one.
If there is none, it is idle, and the next task is handed to it. It returns to the executor if none came for a
moment. A task wakes one thread: others would only compete with it for the interpreter's lock.

A thread pauses while many outcomes are not sent to the broker yet. Otherwise threads with short tasks would
leave the event loop no time until all tasks have run, and would run all fetched tasks while the broker is
unreachable.
"""

import logging
import threading
from collections import deque
from concurrent.futures import Executor
from contextlib import suppress
from queue import Empty, SimpleQueue

from billiard.einfo import ExceptionInfo

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.worker.dispatch.slot_request import SlotRequest

logger = logging.getLogger(__name__)

#: How long an idle thread waits for the next task before it returns to the executor, in seconds. The executor
#: takes longer to start a task, because it wakes several threads.
LINGER_SECONDS = 1.0

#: The seconds between two checks of a pausing thread whether the process ends.
CHECK_SECONDS = 0.05


class ThreadSlots:
    """Runs requests in at most `slots` threads of the executor. The others wait in a queue."""

    def __init__(self, executor: Executor, slots: int, in_flight: InFlightMessages) -> None:
        self._executor = executor
        self._in_flight = in_flight
        self._slots = slots
        self._waiting: deque[SlotRequest] = deque()
        #: The queue of each idle thread, which gets one task from it. The thread that was idle last is next.
        self._idle: list[SimpleQueue[SlotRequest | None]] = []
        self._threads_at_work = 0
        self._is_stopping = False
        self._lock = threading.Lock()

    def submit(self, request: SlotRequest) -> None:
        """Run a request in a thread as soon as one is free. Returns at once."""
        with self._lock:
            if self._idle:
                self._idle.pop().put(request)
                return
            self._waiting.append(request)
            if self._threads_at_work >= self._slots:
                return
            self._threads_at_work += 1
        self._executor.submit(self._run_waiting)

    def reclaim_unstarted(self) -> list[SlotRequest]:
        """Remove all requests that wait for a thread, and return them, the oldest first."""
        with self._lock:
            reclaimed = list(self._waiting)
            self._waiting.clear()
        return reclaimed

    def stop(self) -> None:
        """Return idle threads to the executor, and from now on each thread once no task waits."""
        with self._lock:
            self._is_stopping = True
            self._threads_at_work -= len(self._idle)
            while self._idle:
                self._idle.pop().put(None)

    def _run_waiting(self) -> None:
        """Run requests until none has come for `LINGER_SECONDS`. The loop of one thread."""
        handed = SimpleQueue[SlotRequest | None]()
        while (request := self._next_request(handed)) is not None:
            try:
                request.run_in_thread()
                if self._in_flight.has_too_many_unsettled:
                    self.wait_for_backlog()
            except BaseException:  # not even SystemExit of a task may end a thread of the pool
                with suppress(BaseException):  # else it would be in flight as long as this process lives
                    request.redeliver(ExceptionInfo())
                with suppress(BaseException):  # formatting a traceback may raise, and the thread must go on
                    logger.exception("Task %s[%s] could not be settled", request.name, request.id)

    def wait_for_backlog(self) -> None:
        """Wait until enough outcomes were sent to the broker, or the process drains or ends."""
        in_flight = self._in_flight
        while (
            in_flight.has_too_many_unsettled and not in_flight.draining and threading.main_thread().is_alive()
        ):
            in_flight.outcomes_taken.clear()
            if in_flight.has_too_many_unsettled:
                in_flight.outcomes_taken.wait(CHECK_SECONDS)

    def _next_request(self, handed: SimpleQueue[SlotRequest | None]) -> SlotRequest | None:
        """Return the next request. Return None if the thread must return to the executor.

        `handed` is the queue of this thread while it is idle.
        """
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._is_stopping:
                self._threads_at_work -= 1
                return None
            self._idle.append(handed)
        with suppress(Empty):
            return handed.get(timeout=LINGER_SECONDS)
        with self._lock:
            if handed in self._idle:
                self._idle.remove(handed)
                self._threads_at_work -= 1
                return None
        return handed.get()  # it was handed over meanwhile
