"""The pipes of Celery's prefork pool, and the calls that wait for one of its slots.

The event loop writes a task into a child's pipe when the child is free. After the loop has ended, a task that
it has written in part must be completed, or the child reads garbage. A task that it has not begun to write
must be removed from the pool, which would wait for its end.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from billiard.connection import wait
from celery.concurrency.asynpool import AsynPool, _get_job_writer

#: How long a drain waits for a result before it checks again which children there are.
WAIT_SECONDS = 0.1


def finish_writing(pool: Any) -> None:
    """Write the rest of every task that was written to a child in part. `pool` is Celery's, of any kind."""
    children = children_of(pool)
    if children is None:
        return
    jobs = {_get_job_writer(job): job for job in children._cache.values()}
    for writer in tuple(children._active_writers):
        job = jobs.get(writer)
        if job is not None and job._write_to is not None and job._write_to._is_alive():
            children._flush_writer(job._write_to, writer)


def finish_reading_before_reset(pool: Any, hub: Any) -> None:
    """Replace `hub.reset` by a function that first reads the rest of every result that was read in part.

    The event loop is reset for a new connection, and Celery forgets then how far it has read. The rest of a
    result would be read as the beginning of another one: the worker would end, or wait for ever for the
    missing bytes.
    """

    def reset() -> None:
        finish_reading(pool)
        type(hub).reset(hub)

    hub.reset = reset


def finish_reading(pool: Any) -> None:
    """Read the rest of every result that was read in part. A child that does not write the rest is killed."""
    children = children_of(pool)
    if children is None:
        return
    for fd, child in tuple(children._fileno_to_outq.items()):
        if children._result_handler._finish_partial_read(fd, child):
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


def reclaim_unsent(pool: Any) -> set[str]:
    """Remove from the pool the jobs that were not sent to a child, and return the ids of their tasks."""
    children = children_of(pool)
    if children is None:
        return set()
    unsent = tuple(children.outbound_buffer)
    children.outbound_buffer.clear()
    for job in unsent:
        job.discard()
    return {id for job in unsent for id in job.correlation_id.split()}


def read_results_when_ready(pool: Any, *, meanwhile: Callable[[], None]) -> None:
    """Make a drain of the pool read each result as soon as a child has written it.

    Celery's own drain polls one child after the other, and sleeps half a second for each without a result.
    Beside a task that does not end, it would read the results of others after the deadline, so these would
    run again. `meanwhile` is called several times a second during the drain.
    """
    children = children_of(pool)
    if children is None:
        return
    handler = children._result_handler
    flush, removed = handler._flush_outqueue, set[int]()

    def flush_or_wait(fd: int, remove: Any, processes: Any, on_state_change: Any) -> Any:
        """Read the results of one child. If it has written none, wait a moment for a result of any child."""

        def remove_child(fd: int) -> Any:
            removed.add(fd)
            return remove(fd)

        meanwhile()
        process = processes.get(fd)
        if process is None or process.outq._reader.closed or handler._finish_partial_read(fd, process):
            return remove_child(fd)
        readers = (each.outq._reader for other, each in tuple(processes.items()) if other not in removed)
        if process.outq._reader in wait([reader for reader in readers if not reader.closed], WAIT_SECONDS):
            return flush(fd, remove_child, processes, on_state_change)
        return None

    handler._flush_outqueue = flush_or_wait


def waiting_for_slots(pool: Any) -> tuple[Any, deque[Any]]:
    """Return the semaphore of slots, and the calls that wait for one: callback, args, kwargs."""
    semaphore = pool._pool._putlock
    return semaphore, semaphore._waiting


def queue_before_others(controller: Any, requests: Sequence[Any]) -> None:
    """Put requests before those that wait for a slot of the worker already."""
    start = controller._process_task
    controller.semaphore._waiting.extendleft((start, (request,), {}) for request in reversed(requests))


def children_of(pool: Any) -> Any:
    """Return billiard's pool of children in a pool of Celery's, or None if that is no prefork pool."""
    children = getattr(pool, "_pool", None)
    return children if isinstance(children, AsynPool) else None
