"""Prefork children: none dies unnoticed, and each dies with all that its tasks have started.

A child that is killed closes its pipes a moment before it can be waited for. Celery hears of the first,
looks for the second once, and again only after seconds; if the broker is lost in between, the worker dies of
it on the next connection (`ValueError: file descriptor is None`). So look again until it can be waited for.
"""

import signal
from collections.abc import Callable
from typing import Any

from billiard import get_start_method
from billiard.pool import TimeoutHandler
from celery import Celery, bootsteps
from celery.concurrency.asynpool import AsynPool, Worker
from celery.concurrency.prefork import TaskPool

#: The first wait before looking again, and the longest: a task may close its pipes and live on.
SOON_SECONDS = 0.01
LATEST_SECONDS = 1.0


class Child(Worker):
    """Celery's loop in a prefork child."""

    #: The preparation of a child, before it takes tasks.
    prepare: Callable[[], None] = staticmethod(lambda: None)

    def on_loop_start(self, pid: int) -> None:
        """Begin to take tasks."""
        self.prepare()
        super().on_loop_start(pid)


class HardLimits(TimeoutHandler):
    """Billiard's enforcement of hard time limits."""

    #: Kills a child, by its process id, and the processes of its task.
    kill: Callable[[int], None]

    def _trywaitkill(self, worker: Any) -> None:
        """Kill a child whose task has run into its hard limit, and the processes of the task."""
        self.kill(worker.pid)
        super()._trywaitkill(worker)


class WatchedPool(AsynPool):
    """Celery's prefork pool, which polls each child whose pipes have closed until it is reaped."""

    Worker = Child
    TimeoutHandler = HardLimits

    #: How a child that is spawned gets its application, picklable: a function and its arguments. Celery would
    #: send the application's settings, from which the child makes another that lacks the rest.
    spawned: tuple[Callable[..., Any], tuple[Any, ...]] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.spawned is not None and get_start_method() != "fork":
            function, own = self.spawned
            kwargs |= {"initializer": function, "initargs": (*own, kwargs["initargs"][1])}
        super().__init__(*args, **kwargs)

    #: The number of children started so far.
    started = 0

    def _create_worker_process(self, i: int) -> Any:
        """Start a child."""
        self.started += 1
        return super()._create_worker_process(i)

    def terminate_job(self, pid: int, sig: int | None = None) -> None:
        """Send a child a signal. A signal that kills it kills the processes of its task too."""
        if sig == signal.SIGKILL:
            self.TimeoutHandler.kill(pid)
        super().terminate_job(pid, sig)

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """Note a child whose pipes were closed: from now on only its process is checked."""
        super()._event_process_exit(hub, proc)
        self._check_later(hub, proc, SOON_SECONDS)

    def _check_later(self, hub: Any, proc: Any, seconds: float) -> None:
        """Check a child again after some seconds, if the pool still has it."""
        if proc in self._pool:
            hub.call_later(seconds, self._check_child, hub, proc, min(2 * seconds, LATEST_SECONDS))

    def _check_child(self, hub: Any, proc: Any, seconds: float) -> None:
        """Reap the children that have ended, and check this one again later."""
        self.maintain_pool()
        self._check_later(hub, proc, seconds)

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        """Listen to a child, unless its pipes are closed.

        Celery calls this for all children on every new connection.
        """
        if getattr(proc, "_sentinel_poll", proc) is not None:
            super()._track_child_process(proc, hub)


def children_started(pool: Any) -> int:
    """Return the number of children that a worker's pool has started so far, or 0 if it has threads."""
    return getattr(getattr(pool, "_pool", None), "started", 0)


class PoolChoice(bootsteps.Step):
    """Makes a prefork pool start watched children. Called before it starts any."""

    requires = ("celery.worker.components:Pool",)

    def create(self, parent: Any) -> None:
        """Choose the watched pool for the worker, if it is prefork."""
        if isinstance(parent.pool, TaskPool):
            parent.pool.Pool = WatchedPool


def install(
    app: Celery,
    *,
    prepare: Callable[[], None],
    kill: Callable[[int], None],
    spawned: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
) -> None:
    """Make the workers of this application notice the death of every child.

    `prepare` is called in a child before it takes tasks. `kill` ends a child, by its process id, and the
    processes that its task has started. `spawned` is called in a child that does not inherit from its parent,
    with the worker's host name last.
    """
    Child.prepare, HardLimits.kill = staticmethod(prepare), staticmethod(kill)
    WatchedPool.spawned = spawned
    app.steps["worker"].add(PoolChoice)
