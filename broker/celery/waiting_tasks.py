"""The tasks of a Celery worker that wait for a slot: counted, and released.

Celery keeps them in a line of its prefork pool's semaphore, or hands them to its executor of threads, which
keeps them in a queue of its own. Taken out of either, a task can no longer start.
"""

import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty
from typing import Any

from celery import signals

from millpond.broker.outcomes import RELEASE

_consumers: "weakref.WeakSet[Any]" = weakref.WeakSet()


class WaitingTasks:
    """The tasks that a consumer of Celery's has received on a channel and not started."""

    def __init__(self, consumer: Any, channel: Any) -> None:
        from celery.worker import state  # a worker has it, a producer has no need of it

        self._consumer, self._channel, self._state = consumer, channel, state
        #: Workers of Millpond's always acknowledge late, and request as many messages as they have slots.
        self.usable_slots: Callable[[int], int] | None = (
            None if hasattr(consumer, "threads") else self._slots_for_in_flight
        )

    def _slots_for_in_flight(self, granted: int) -> int:
        """Return the number of slots that do not run a task which was acknowledged before its end."""
        pool = self._consumer.pool
        semaphore = self._consumer.controller.semaphore
        size = int((semaphore.initial_value if pool.uses_semaphore else pool.limit) or 1)
        # A copy of the plain set: threads add to it meanwhile.
        running = [reference() for reference in tuple(self._state.active_requests.data)]
        return max(0, min(granted, size) - sum(1 for each in running if getattr(each, "acknowledged", False)))

    def release_waiting(self) -> int:
        """Release the messages of all tasks that wait, the newest first, and return their number."""
        requests = list(self._take_all())
        for request in reversed(requests):
            if hasattr(request, "release"):
                request.release()
                continue
            self._state.task_ready(request)
            self._channel.settle(request.message.delivery, RELEASE)
        return len(requests)

    def _take_all(self) -> Iterator[Any]:
        """Take every task out of its line that came by this channel, the oldest first."""
        pool = self._consumer.pool
        if own := getattr(self._consumer, "threads", None):
            yield from own.reclaim_unstarted()
        elif pool.uses_semaphore:
            waiting = self._consumer.controller.semaphore._waiting
            calls = [waiting.popleft() for _ in range(len(waiting))]
            yield from self._own_requests(calls, lambda call: call[1][0] if call[1] else None, waiting.append)
        elif isinstance(executor := getattr(pool, "executor", None), ThreadPoolExecutor):
            queue = executor._work_queue
            yield from self._own_requests(_take_from_queue(queue), _request_of_work, queue.put)

    def _own_requests(
        self, items: list[Any], request_of: Callable[[Any], Any], put_back: Callable[[Any], None]
    ) -> Iterator[Any]:
        """Yield the requests of items that came by this channel, and return the other items to their line."""
        for item in items:
            request = request_of(item)
            message = getattr(request, "message", None)
            if hasattr(request, "release") or getattr(message, "channel", None) is self._channel:
                yield request
            else:
                put_back(item)


def _take_from_queue(queue: Any) -> list[Any]:
    """Return all items of a queue."""
    found = []
    try:
        while True:
            found.append(queue.get_nowait())
    except Empty:
        return found


def _request_of_work(work: Any) -> Any:
    """Return the request of an item of the executor's queue: Celery gives it the request's own callback."""
    if work is None:  # the executor ends
        return None
    accepted = work.args[-1] if work.args else None
    return getattr(accepted, "__self__", None)


def waiting_tasks_of(channel: Any) -> WaitingTasks | None:
    """Return the waiting tasks of the worker that consumes on this channel, or None if no worker does."""
    for consumer in tuple(_consumers):
        if getattr(consumer.task_consumer, "channel", None) is channel:
            return WaitingTasks(consumer, channel)
    return None


def _wake_after_early_end(**_: Any) -> None:
    """Wake the loop when a thread has ended a task that was acknowledged before: no settlement does."""
    for consumer in tuple(_consumers):
        fetcher = getattr(getattr(consumer.task_consumer, "channel", None), "fetcher", None)
        if fetcher is not None and consumer.hub is not None:
            consumer.hub.call_soon(fetcher.wake)


def _note_consumer(sender: Any = None, **_: Any) -> None:
    """Note the consumer of a worker in this process. Its channel has begun to consume before."""
    _consumers.add(sender)
    if not hasattr(sender, "threads") and not sender.pool.uses_semaphore:
        signals.task_postrun.connect(_wake_after_early_end)  # a receiver costs every task something
    channel = getattr(getattr(sender, "task_consumer", None), "channel", None)
    in_flight = getattr(channel, "in_flight", None)
    if in_flight is not None:
        in_flight.learned_prefetch.waiting_tasks = waiting_tasks_of(channel)


signals.worker_ready.connect(_note_consumer)
