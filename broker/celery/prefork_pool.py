"""The prefork pool's pipes and its line for slots: tasks on their way to a child, or back.

The loop writes a task into a child's pipe when the child is free. A task that it has begun to write must be
written whole, or the child reads nonsense. A task that it has not begun to write never reaches a child once
the loop has ended, and the pool would wait for it.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from billiard.connection import wait
from celery.concurrency.asynpool import AsynPool, _get_job_writer

#: How long the drain waits for a result before it looks again at which children there are.
WAIT_SECONDS = 0.1


def finish_writing(pool: Any) -> None:
    """Write the rest of every task that has been written in part. `pool` is any pool of Celery's."""
    children = children_of(pool)
    if children is None:
        return
    jobs = {_get_job_writer(job): job for job in children._cache.values()}
    for writer in tuple(children._active_writers):
        job = jobs.get(writer)
        if job is not None and job._write_to is not None and job._write_to._is_alive():
            children._flush_writer(job._write_to, writer)


def keep_reading(pool: Any, hub: Any) -> None:
    """Read unfinished results of children before the event loop starts again on a new connection.

    Celery forgets how far it has read. The rest of a result would be read as the beginning of another. The
    worker would end, or wait for ever for bytes that no child will write.
    """

    def reset() -> None:
        finish_reading(pool)
        type(hub).reset(hub)

    hub.reset = reset


def finish_reading(pool: Any) -> None:
    """Read the rest of every result that has been read in part. A child that does not write on is killed."""
    children = children_of(pool)
    if children is None:
        return
    for fd, child in tuple(children._fileno_to_outq.items()):
        if children._result_handler._finish_partial_read(fd, child):
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


def reclaim_unsent(pool: Any) -> set[str]:
    """Remove from the pool the tasks that were not sent to a child, and return their ids."""
    children = children_of(pool)
    if children is None:
        return set()
    waiting = tuple(children.outbound_buffer)
    children.outbound_buffer.clear()
    for job in waiting:
        job.discard()
    return {id for job in waiting for id in job.correlation_id.split()}


def read_results_when_ready(pool: Any, *, meanwhile: Callable[[], None]) -> None:
    """Make a drain of the pool read each result as soon as it is there.

    `meanwhile` is called several times a second while children run.

    Celery's own drain polls one child after the other, and sleeps half a second for each without a result:
    beside a task that does not end, the results of others would be read after the deadline, and run again.
    """
    children = children_of(pool)
    if children is None:
        return
    handler = children._result_handler
    flush, done_with = handler._flush_outqueue, set[int]()

    def flush_or_wait(fd: int, remove: Any, processes: Any, on_state_change: Any) -> Any:
        """Read the results of one child. Wait a moment if none is there yet."""

        def drop(fd: int) -> Any:
            done_with.add(fd)
            return remove(fd)

        meanwhile()
        process = processes.get(fd)
        if process is None or process.outq._reader.closed or handler._finish_partial_read(fd, process):
            return drop(fd)
        open_ = (each.outq._reader for other, each in tuple(processes.items()) if other not in done_with)
        if process.outq._reader in wait([each for each in open_ if not each.closed], WAIT_SECONDS):
            return flush(fd, drop, processes, on_state_change)
        return None

    handler._flush_outqueue = flush_or_wait


def waiting_for_slots(pool: Any) -> tuple[Any, deque[Any]]:
    """Return the semaphore of slots, and the calls that wait for one: callback, args, kwargs."""
    semaphore = pool._pool._putlock
    return semaphore, semaphore._waiting


def put_first_in_line(controller: Any, requests: Sequence[Any]) -> None:
    """Queue requests for a slot, before those that wait now."""
    start = controller._process_task
    controller.semaphore._waiting.extendleft((start, (each,), {}) for each in reversed(requests))


def children_of(pool: Any) -> Any:
    """Return billiard's pool of children behind a pool of Celery's, or None if that is no prefork pool."""
    children = getattr(pool, "_pool", None)
    return children if isinstance(children, AsynPool) else None
