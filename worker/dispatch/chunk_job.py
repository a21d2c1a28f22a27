"""Run several tasks in one prefork child, as one job of its pool.

A task that turns out long delays no other: the worker reclaims the tasks behind it, and settles the tasks
that ended before it. When the child dies, only the task that ran in it counts as delivered.

Worker and child share a semaphore with one unit for each task. It is made before the child is forked. The
child claims a task before it starts it, from the front. The worker reclaims tasks from the end. Each task is
claimed once, by one of the two, and neither waits for the other. A claim of a dead child stays, so the worker
knows which tasks the child never started.
"""

import pickle
from collections.abc import Callable, Sequence
from mmap import mmap
from multiprocessing import get_context
from time import monotonic
from typing import Any

from billiard import get_start_method
from billiard.exceptions import Terminated

from millpond.broker.delivery import Delivery, delivery_fields
from millpond.worker.celery.slot import SlotResult, run
from millpond.worker.dispatch.slot_request import SlotRequest


class ChunkJob:
    """The tasks of a chunk that are in the child, and the number of these that are settled.

    `on_end(job, succeeded)` is called once when the chunk has ended.
    """

    def __init__(
        self, members: list[SlotRequest], memory: "ChunkMemory", on_end: "Callable[[ChunkJob, bool], None]"
    ) -> None:
        #: The tasks that were not reclaimed, in order.
        self.members = members
        self.memory = memory
        #: The latest time at which the running task can have started (monotonic seconds).
        self.running_since = monotonic()
        #: Process id of the child; None until billiard reports that it accepted the chunk. Results may come
        #: before.
        self.pid: int | None = None
        self._settled = 0
        self._on_end = on_end

    def send(self, pool: Any) -> Any:
        """Send the chunk to the pool and return its `ApplyResult`.

        The child is killed at the shortest time limit of any task. The others are then sent one by one.
        """
        for request in self.members:
            request.in_child, request.chunk = True, self
        self.memory.offer_chunk(len(self.members))
        limits = [limit for request in self.members for limit in request.limits if limit]
        return pool.apply_async(
            run_all,
            args=(self.memory.number, [delivery_fields(request.delivery) for request in self.members]),
            accept_callback=self.on_accepted,
            callback=self.on_success,
            error_callback=self.on_failure,
            timeout=min(limits, default=None),
            correlation_id=" ".join(request.id for request in self.members),
        )

    @property
    def running(self) -> SlotRequest | None:
        """Return the task that runs in the child after a reclaim, or None if all are settled."""
        return self.members[-1] if len(self.members) > self._settled else None

    def settle_ended(self) -> None:
        """Settle the tasks that the child has ended so far."""
        self._settle_results(self.memory.take_results())

    def reclaim_unstarted(self) -> list[SlotRequest]:
        """Settle the ended tasks, and return the unstarted ones, which the child can no longer start."""
        first = len(self.members) - self.memory.reclaim_unstarted()
        taken, self.members = self.members[first:], self.members[:first]
        for request in taken:
            request.in_child, request.chunk = False, None
            request.undo_start()
        self.settle_ended()
        if self.running is not None:
            self._mark_as_running(self.running)
        return taken

    def _settle_results(self, results: Sequence[SlotResult]) -> None:
        """Settle the next tasks, one with each result, and mark the task after them as running."""
        for result in results:
            request = self.members[self._settled]
            self._settled += 1
            if request.time_start is None:
                request.note_start(self.pid, self.running_since)
            self.running_since += result[1]
            request.on_success(result)
        if self._settled < len(self.members):
            self._mark_as_running(self.members[self._settled])

    def _mark_as_running(self, request: SlotRequest) -> None:
        """Mark a task as running if the child has accepted the chunk."""
        if self.pid is not None and request.time_start is None:
            request.on_accepted(self.pid, self.running_since)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Note the child, and mark the first unsettled task as running.

        Results of the chunk may have been read before.
        """
        self.pid = pid
        if not self._settled:
            self.running_since = time_accepted
        if self._settled < len(self.members):
            self._mark_as_running(self.members[self._settled])

    def on_success(self, results: Any, **_: Any) -> None:
        """Settle each task with its result.

        If billiard passes an `ExceptionInfo` instead of a list, the child has failed: see `on_failure`.
        """
        if not isinstance(results, list):
            self.on_failure(results)
            return
        self._settle_results(results[self._settled :])
        self._on_end(self, True)

    def on_failure(self, exc_info: Any, **_: Any) -> None:
        """Redeliver the task that ran, because the child died or the task took too long.

        Ended tasks are settled, and tasks that were not started are released. If the child was terminated on
        purpose, the running task was cancelled, and it is settled as such.
        """
        error = exc_info.exception
        on_purpose = isinstance(getattr(error, "exc", error), Terminated)
        for request in self.reclaim_unstarted():
            request.release()
        for request in self.members[self._settled :]:
            if not on_purpose:
                request.redeliver(exc_info)
            elif request is self.running:
                request.on_failure(exc_info)
            else:  # it ended and its result could not be kept
                request.release()
        self._on_end(self, False)


def run_all(number: int, tasks: list[tuple[Any, ...]]) -> list[SlotResult]:
    """Run tasks one after the other in a child until the rest is reclaimed. Return a result for each."""
    memory, results = _memories[number], list[SlotResult]()
    memory.begin_chunk()
    for each in tasks:
        if not memory.claim_task():
            break
        results.append(run(Delivery(*each)))
        memory.keep_result(results[-1])
    return results


#: The results of a chunk are kept in shared memory up to this many bytes. The rest is sent when it ends.
KEPT_BYTES = 65_536

_LENGTH_BYTES = 4


class ChunkMemory:
    """Memory shared by the worker and a child: the unstarted tasks of a chunk, and results of ended ones."""

    def __init__(self, number: int) -> None:
        context = get_context("fork")
        self.number = number
        self._unstarted = context.Semaphore(0)
        self._ended = context.Semaphore(0)
        self._kept = mmap(-1, KEPT_BYTES)
        #: How far the worker has read, and the child has written.
        self._read = self._written = 0

    # The worker's side

    def offer_chunk(self, count: int) -> None:
        """Begin with a chunk of `count` tasks. No child may still use the previous chunk."""
        self.reclaim_unstarted()
        while self._ended.acquire(False):
            pass
        self._read = 0
        for _ in range(count):
            self._unstarted.release()

    def reclaim_unstarted(self) -> int:
        """Claim all tasks that are not started, which are the last of the chunk, and return their number."""
        count = 0
        while self._unstarted.acquire(False):
            count += 1
        return count

    def take_results(self) -> list[Any]:
        """Return the results, in order, that have come since the last call."""
        results = []
        while self._ended.acquire(False):
            start = self._read + _LENGTH_BYTES
            self._read = start + int.from_bytes(self._kept[self._read : start])
            results.append(pickle.loads(self._kept[start : self._read]))
        return results

    # The child's side

    def begin_chunk(self) -> None:
        """Begin with the first task."""
        self._written = 0

    def claim_task(self) -> bool:
        """Claim the next task. Return False if it and all tasks behind it were reclaimed."""
        return self._unstarted.acquire(False)

    def keep_result(self, result: Any) -> None:
        """Keep the result of the task that just ended, unless it or one before it cannot be kept."""
        if self._written > KEPT_BYTES:
            return
        try:
            text = pickle.dumps(result)
        except Exception:  # the error is raised again when the result is sent
            self._written = KEPT_BYTES + 1
            return
        start, self._written = self._written, self._written + _LENGTH_BYTES + len(text)
        if self._written <= KEPT_BYTES:
            self._kept[start : self._written] = len(text).to_bytes(_LENGTH_BYTES) + text
            self._ended.release()  # in this order: the worker reads only results that were released


#: The memories of all chunks of this process, by their numbers. Its children inherit them.
_memories: list[ChunkMemory] = []


def memories_for(pool: Any) -> list[ChunkMemory]:
    """Make the memories of a Celery pool whose children are still to be forked.

    The list is empty for a pool whose children inherit nothing.
    """
    if not (pool.uses_semaphore and pool.forking_enable and get_start_method() == "fork"):
        return []
    # Twice as many as its slots can use at once: the memory of a dead child is not used again for a while.
    made = [ChunkMemory(len(_memories) + n) for n in range(2 * pool.limit)]
    _memories.extend(made)
    return made
