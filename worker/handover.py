"""See to the tasks that are on their way to a prefork child when the event loop stops turning.

The loop writes a task into a child's pipe when the child is free. What it has begun to write must be
written whole, or the child reads nonsense; what it has not begun never reaches a child once the loop has
ended, and the pool would wait for it.
"""

from typing import Any

from celery.concurrency.asynpool import AsynPool, _get_job_writer


def finish_writing(pool: Any) -> None:
    """Write the rest of every task that has been written in part; `pool` is Celery's, of any kind."""
    children = _children_of(pool)
    if children is None:
        return
    jobs = {_get_job_writer(job): job for job in children._cache.values()}
    for writer in tuple(children._active_writers):
        job = jobs.get(writer)
        if job is not None and job._write_to is not None and job._write_to._is_alive():
            children._flush_writer(job._write_to, writer)


def take_back(pool: Any) -> set[str]:
    """Take the tasks out of the pool that no child has been given; return their ids."""
    children = _children_of(pool)
    if children is None:
        return set()
    waiting = tuple(children.outbound_buffer)
    children.outbound_buffer.clear()
    for job in waiting:
        job.discard()
    return {id for job in waiting for id in job.correlation_id.split()}


def _children_of(pool: Any) -> Any:
    children = getattr(pool, "_pool", None)
    return children if isinstance(children, AsynPool) else None
