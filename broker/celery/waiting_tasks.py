"""The tasks of a Celery worker that wait for a slot, and how they are released.

With a prefork pool Celery keeps them in its semaphore of slots. With threads it submits them to an executor,
which keeps them in a queue. A task that is removed from there can no longer start, so its message can be
released.
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
        from celery.worker import state  # not at import, because producers do not need it

        self._consumer, self._channel, self._state = consumer, channel, state
        #: None for a worker of Millpond's: it acknowledges every task late, so all of its slots can run one.
        self.usable_slots: Callable[[int], int] | None = (
            None if hasattr(consumer, "threads") else self._slots_for_in_flight
        )

    def _slots_for_in_flight(self, slots: int) -> int:
        """Return how many of the slots can run a message in flight.

        These are the slots of the pool without those that run a task which was acknowledged before its end.
        """
        pool = self._consumer.pool
        semaphore = self._consumer.controller.semaphore
        pool_slots = int((semaphore.initial_value if pool.uses_semaphore else pool.limit) or 1)
        # Celery's weak set cannot be iterated while threads add to it, but its plain set of references can be
        # copied.
        running = [reference() for reference in tuple(self._state.active_requests.data)]
        acknowledged = sum(1 for request in running if getattr(request, "acknowledged", False))
        return max(0, min(slots, pool_slots) - acknowledged)

    def release_waiting(self) -> int:
        """Release the messages of all tasks that wait, the newest first, and return their number."""
        requests = list(self._remove_waiting())
        for request in reversed(requests):
            if hasattr(request, "release"):
                request.release()
                continue
            self._state.task_ready(request)
            self._channel.settle(request.message.delivery, RELEASE)
        return len(requests)

    def _remove_waiting(self) -> Iterator[Any]:
        """Remove the tasks of this channel that wait for a slot, and yield their requests, oldest first."""
        pool = self._consumer.pool
        if threads := getattr(self._consumer, "threads", None):  # Millpond's pool of threads
            yield from threads.reclaim_unstarted()
        elif pool.uses_semaphore:
            waiting = self._consumer.controller.semaphore._waiting
            calls = [waiting.popleft() for _ in range(len(waiting))]
            yield from self._own_requests(calls, lambda call: call[1][0] if call[1] else None, waiting.append)
        elif isinstance(executor := getattr(pool, "executor", None), ThreadPoolExecutor):
            queue = executor._work_queue
            yield from self._own_requests(_empty_queue(queue), _request_of_work, queue.put)

    def _own_requests(
        self, items: list[Any], request_of: Callable[[Any], Any], put_back: Callable[[Any], None]
    ) -> Iterator[Any]:
        """Yield the requests of the items that this channel has received, and put the other items back."""
        for item in items:
            request = request_of(item)
            message = getattr(request, "message", None)
            if hasattr(request, "release") or getattr(message, "channel", None) is self._channel:
                yield request
            else:
                put_back(item)


def _empty_queue(queue: Any) -> list[Any]:
    """Remove and return all items of a queue."""
    items = []
    try:
        while True:
            items.append(queue.get_nowait())
    except Empty:
        return items


def _request_of_work(work: Any) -> Any:
    """Return the request to which a work item of the executor belongs, or None if it belongs to none.

    The last argument of the item is a bound method of the request: its callback. An item that is None ends
    the executor.
    """
    callback = work.args[-1] if work is not None and work.args else None
    return getattr(callback, "__self__", None)


def waiting_tasks_of(channel: Any) -> WaitingTasks | None:
    """Return the waiting tasks of the worker that consumes on this channel, or None if no worker does."""
    for consumer in tuple(_consumers):
        if getattr(consumer.task_consumer, "channel", None) is channel:
            return WaitingTasks(consumer, channel)
    return None


def _fetch_after_early_end(**_: Any) -> None:
    """Start a fetch of this process's fetchers after the end of a task that was acknowledged before it.

    The end of such a task frees a slot, and no outcome is sent that would wake the event loop.
    """
    for consumer in tuple(_consumers):
        fetcher = getattr(getattr(consumer.task_consumer, "channel", None), "fetcher", None)
        if fetcher is not None and consumer.hub is not None:
            consumer.hub.call_soon(fetcher.wake)


def _register_consumer(sender: Any = None, **_: Any) -> None:
    """Register the consumer of a worker that has started in this process. Its channel consumes already."""
    _consumers.add(sender)
    if not hasattr(sender, "threads") and not sender.pool.uses_semaphore:
        # Only for these pools, because a receiver costs every task time.
        signals.task_postrun.connect(_fetch_after_early_end)
    channel = getattr(getattr(sender, "task_consumer", None), "channel", None)
    in_flight = getattr(channel, "in_flight", None)
    if in_flight is not None:
        in_flight.learned_prefetch.waiting_tasks = waiting_tasks_of(channel)


signals.worker_ready.connect(_register_consumer)
