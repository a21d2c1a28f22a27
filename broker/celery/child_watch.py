"""Prefork children: the death of each is noticed soon, and the processes that its task started die with it.

A child that is killed closes its pipes a moment before it can be reaped. Celery notices the closed pipes,
tries to reap the child once, and again only after seconds. If the connection to the broker is lost in
between, the worker fails on the next connection (`ValueError: file descriptor is None`). So the pool here
tries again and again.

While a worker reconnects, no results are read, and afterwards timers are called first. So a time limit that
has run out holds only once everything that the child has written is read.
"""

import signal
from collections.abc import Callable
from time import monotonic
from typing import Any

from billiard import get_start_method
from billiard.pool import TimeoutHandler
from celery import Celery, bootsteps
from celery.concurrency.asynpool import AsynPool, Worker
from celery.concurrency.prefork import TaskPool

#: How long after a connection was made results of the time before may be unread.
READ_SECONDS = 5.0

#: The first pause before a child is checked again, and the longest. A task may close its pipes and run on.
SOON_SECONDS = 0.01
LATEST_SECONDS = 1.0


class Child(Worker):
    """Celery's loop in a prefork child."""

    #: Prepares a child before it runs tasks.
    prepare: Callable[[], None] = staticmethod(lambda: None)

    def on_loop_start(self, pid: int) -> None:
        """Prepare this child, then run tasks."""
        self.prepare()
        super().on_loop_start(pid)


class HardLimits(TimeoutHandler):
    """Billiard's enforcement of hard time limits."""

    #: Kills a child, by its process id, and the processes that its task has started.
    kill: Callable[[int], None]

    def _trywaitkill(self, worker: Any) -> None:
        """Kill a child whose task has reached its hard limit, and the processes that the task has started."""
        self.kill(worker.pid)
        super()._trywaitkill(worker)


class WatchedPool(AsynPool):
    """Celery's prefork pool, which polls each child whose pipes have closed until it is reaped."""

    Worker = Child
    TimeoutHandler = HardLimits

    #: The initializer of a child that is spawned, not forked: a function and its arguments, picklable.
    #: Celery's own initializer would make a new application from the settings of this one, which lacks
    #: everything else.
    spawned: tuple[Callable[..., Any], tuple[Any, ...]] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.spawned is not None and get_start_method() != "fork":
            function, arguments = self.spawned
            kwargs |= {"initializer": function, "initargs": (*arguments, kwargs["initargs"][1])}
        super().__init__(*args, **kwargs)

    #: The number of children started so far.
    started = 0

    def _create_worker_process(self, i: int) -> Any:
        """Start a child process and count it."""
        self.started += 1
        return super()._create_worker_process(i)

    def terminate_job(self, pid: int, sig: int | None = None) -> None:
        """Send a child a signal. A signal that kills it kills the processes of its task too."""
        if sig == signal.SIGKILL:
            self.TimeoutHandler.kill(pid)
        super().terminate_job(pid, sig)

    def register_with_event_loop(self, hub: Any) -> None:
        """Set up the pool in an event loop. Celery calls this on every new connection."""
        self._call_later, self._read_by = hub.call_later, monotonic() + READ_SECONDS
        super().register_with_event_loop(hub)

    def _on_soft_timeout(self, job: int, soft: float, hard: float | None, hub: Any) -> None:
        """Interrupt a job that has reached its soft limit (seconds), unless its result may be unread."""
        if self._has_unread_result(job):
            again = (job, soft, hard, hub)
            self._tref_for_id[job] = self._call_later(SOON_SECONDS, self._on_soft_timeout, *again)
        else:
            super()._on_soft_timeout(job, soft, hard, hub)

    def _on_hard_timeout(self, job: int) -> None:
        """Kill the child of a job that has reached its hard limit, unless its result may be unread."""
        if self._has_unread_result(job):
            self._tref_for_id[job] = self._call_later(SOON_SECONDS, self._on_hard_timeout, job)
        else:
            super()._on_hard_timeout(job)

    def _has_unread_result(self, job: int) -> bool:
        """True if this connection is new, and the child of a job has written something that is not read."""
        result = self._cache.get(job) if monotonic() < self._read_by else None
        for child in self._pool:
            if result is not None and child.pid == result._worker_pid:
                reader = child.outq._reader
                return bool(not reader.closed and reader.poll(0))
        return False

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """Check a child whose pipes were closed soon, and again until it is reaped."""
        super()._event_process_exit(hub, proc)
        self._check_later(hub, proc, SOON_SECONDS)

    def _check_later(self, hub: Any, proc: Any, seconds: float) -> None:
        """Check a child after some seconds, unless it was reaped. Each pause is twice as long as the last."""
        if proc in self._pool:
            hub.call_later(seconds, self._check_child, hub, proc, min(2 * seconds, LATEST_SECONDS))

    def _check_child(self, hub: Any, proc: Any, seconds: float) -> None:
        """Reap the children that have ended, and check this one again later."""
        self.maintain_pool()
        self._check_later(hub, proc, seconds)

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        """Watch the pipes of a child, unless they are closed. Celery calls this on every new connection."""
        if getattr(proc, "_sentinel_poll", proc) is not None:
            super()._track_child_process(proc, hub)


def count_started_children(pool: Any) -> int:
    """Return the number of children that a worker's pool has started so far, 0 if it has none."""
    return getattr(getattr(pool, "_pool", None), "started", 0)


class UseWatchedPool(bootsteps.Step):
    """The step of a worker's start, after its pool was created and before it starts children."""

    requires = ("celery.worker.components:Pool",)

    def create(self, parent: Any) -> None:
        """Replace the class of billiard's pool by `WatchedPool`, if the worker's pool is prefork."""
        if isinstance(parent.pool, TaskPool):
            parent.pool.Pool = WatchedPool


def install(
    app: Celery,
    *,
    prepare: Callable[[], None],
    kill: Callable[[int], None],
    spawned: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
) -> None:
    """Make the prefork workers of this application use `WatchedPool`.

    `prepare` is called in a child before it runs tasks. `kill` kills a child, by its process id, and the
    processes that its task has started. `spawned` is the initializer of a child that is spawned: its last
    argument is the worker's host name.
    """
    Child.prepare, HardLimits.kill = staticmethod(prepare), staticmethod(kill)
    WatchedPool.spawned = spawned
    app.steps["worker"].add(UseWatchedPool)
