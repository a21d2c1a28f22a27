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

from millpond.broker.delivery import delivery_fields
from millpond.worker.celery.slot import SlotResult, run_in_child
from millpond.worker.dispatch.slot_request import SlotRequest


class ChunkJob:
    """The tasks of a chunk that are in the child, and how many of them are settled.

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
        self._settled_count = 0
        self._on_end = on_end

    def send(self, pool: Any) -> Any:
        """Send the chunk to the pool and return the pool's `ApplyResult`.

        The child is killed if the chunk takes longer than the shortest time limit of any of its tasks. Tasks
        that had not started then are released, and run later.
        """
        for request in self.members:
            request.in_child, request.chunk = True, self
        self.memory.offer_chunk(len(self.members))
        time_limits = [limit for request in self.members for limit in request.limits if limit]
        return pool.apply_async(
            run_chunk,
            args=(self.memory.number, [delivery_fields(request.delivery) for request in self.members]),
            accept_callback=self.on_accepted,
            callback=self.on_success,
            error_callback=self.on_failure,
            timeout=min(time_limits, default=None),
            correlation_id=" ".join(request.id for request in self.members),
        )

    @property
    def last_unsettled(self) -> SlotRequest | None:
        """The last unsettled task, or None if all are settled.

        After `reclaim_unstarted` it is the one that runs.
        """
        return self.members[-1] if len(self.members) > self._settled_count else None

    def settle_ended(self) -> None:
        """Settle the tasks that the child has ended so far."""
        self._settle_results(self.memory.read_results())

    def reclaim_unstarted(self) -> list[SlotRequest]:
        """Settle the ended tasks, and return the unstarted ones, which the child can no longer start."""
        first = len(self.members) - self.memory.reclaim_unstarted()
        reclaimed, self.members = self.members[first:], self.members[:first]
        for request in reclaimed:
            request.in_child, request.chunk = False, None
            request.forget_start()
        self.settle_ended()
        if self.last_unsettled is not None:
            self._mark_as_running(self.last_unsettled)
        return reclaimed

    def _settle_results(self, results: Sequence[SlotResult]) -> None:
        """Settle the next unsettled tasks, each with one of the results.

        Mark the task after them as running.
        """
        for result in results:
            request = self.members[self._settled_count]
            self._settled_count += 1
            if request.time_start is None:
                request.record_start(self.pid, self.running_since)
            self.running_since += result[1]
            request.on_success(result)
        if self._settled_count < len(self.members):
            self._mark_as_running(self.members[self._settled_count])

    def _mark_as_running(self, request: SlotRequest) -> None:
        """Mark a task as running if the child has accepted the chunk."""
        if self.pid is not None and request.time_start is None:
            request.on_accepted(self.pid, self.running_since)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Record the process id of the child, and mark the first unsettled task as running.

        Results of the chunk may have been read before this call.
        """
        self.pid = pid
        if not self._settled_count:
            self.running_since = time_accepted
        if self._settled_count < len(self.members):
            self._mark_as_running(self.members[self._settled_count])

    def on_success(self, results: Any, **_: Any) -> None:
        """Settle each unsettled task with its result.

        If billiard passes an `ExceptionInfo` instead of a list, the child has failed: see `on_failure`.
        """
        if not isinstance(results, list):
            self.on_failure(results)
            return
        self._settle_results(results[self._settled_count :])
        self._on_end(self, True)

    def on_failure(self, exc_info: Any, **_: Any) -> None:
        """Redeliver the task that ran, because the child died or the task took too long.

        Ended tasks are settled. Tasks that were not started are released, and so are ended ones whose results
        did not fit into the memory: no delivery of these is counted, but they run again. If the child was
        terminated on request, its running task was cancelled and is settled as cancelled.
        """
        error = exc_info.exception
        on_request = isinstance(getattr(error, "exc", error), Terminated)
        for request in self.reclaim_unstarted():
            request.release()
        for request in self.members[self._settled_count :]:
            if request is not self.last_unsettled:  # it has ended, and its result did not fit
                request.release()
            elif on_request:
                request.on_failure(exc_info)
            else:
                request.redeliver(exc_info)
        self._on_end(self, False)


def run_chunk(number: int, tasks: list[tuple[Any, ...]]) -> list[SlotResult]:
    """Run the tasks of a chunk in a child, one after the other, and return their results.

    `number` is that of the chunk's memory, `tasks` the fields of the deliveries. Stops at the first task that
    the worker has reclaimed.
    """
    memory, results = _memories[number], list[SlotResult]()
    memory.begin_chunk()
    for fields in tasks:
        if not memory.claim_task():
            break
        results.append(run_in_child(*fields))
        memory.keep_result(results[-1])
    return results


#: The bytes of shared memory for the results of a chunk. Results that do not fit are sent when it ends.
RESULT_BYTES = 65_536

#: The bytes of the length before each result.
_LENGTH_BYTES = 4


class ChunkMemory:
    """Memory shared by the worker and a child: the unstarted tasks of a chunk, and results of ended ones."""

    def __init__(self, number: int) -> None:
        context = get_context("fork")
        self.number = number
        self._unstarted = context.Semaphore(0)
        self._results_ready = context.Semaphore(0)
        self._results = mmap(-1, RESULT_BYTES)
        #: The offsets up to which the worker has read results, and the child has written them.
        self._read_to = self._written_to = 0

    # The worker's side

    def offer_chunk(self, count: int) -> None:
        """Prepare the memory for a chunk of `count` tasks, which a child then claims.

        The caller ensures that no child uses the memory for an earlier chunk.
        """
        self.reclaim_unstarted()
        while self._results_ready.acquire(False):
            pass
        self._read_to = 0
        for _ in range(count):
            self._unstarted.release()

    def reclaim_unstarted(self) -> int:
        """Claim all tasks that the child has not started, and return their number.

        They are the last ones of the chunk.
        """
        count = 0
        while self._unstarted.acquire(False):
            count += 1
        return count

    def read_results(self) -> list[Any]:
        """Return the results that the child has kept since the last call, in order."""
        results = []
        while self._results_ready.acquire(False):
            start = self._read_to + _LENGTH_BYTES
            self._read_to = start + int.from_bytes(self._results[self._read_to : start])
            results.append(pickle.loads(self._results[start : self._read_to]))
        return results

    # The child's side

    def begin_chunk(self) -> None:
        """Write the next result at the beginning of the memory.

        The child calls this before the first task.
        """
        self._written_to = 0

    def claim_task(self) -> bool:
        """Claim the next task. Return False if the worker has reclaimed it, and with it all later ones."""
        return self._unstarted.acquire(False)

    def keep_result(self, result: Any) -> None:
        """Write the result of the task that just ended, for `read_results`.

        Nothing is written once a result did not fit or could not be pickled, so that results keep their
        order.
        """
        if self._written_to > RESULT_BYTES:
            return
        try:
            pickled = pickle.dumps(result)
        except Exception:  # the same error is raised, and handled, when the chunk's results are sent
            self._written_to = RESULT_BYTES + 1
            return
        start, self._written_to = self._written_to, self._written_to + _LENGTH_BYTES + len(pickled)
        if self._written_to <= RESULT_BYTES:
            self._results[start : self._written_to] = len(pickled).to_bytes(_LENGTH_BYTES) + pickled
            self._results_ready.release()  # after the write: the worker may read it from here on


#: The memories of all chunks of this process, by their numbers. Its children inherit them.
_memories: list[ChunkMemory] = []


def make_memories(pool: Any) -> list[ChunkMemory]:
    """Return new memories for the chunks of a Celery pool. Call it before the pool forks its children.

    The list is empty for a pool without forked children, which could not inherit the memory.
    """
    if not (pool.uses_semaphore and pool.forking_enable and get_start_method() == "fork"):
        return []
    # Twice as many as its slots can use at once: the memory of a dead child is not used again for a while.
    memories = [ChunkMemory(len(_memories) + n) for n in range(2 * pool.limit)]
    _memories.extend(memories)
    return memories
