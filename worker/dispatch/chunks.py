"""Send short tasks to a prefork child several at a time.

To send a task of a millisecond through the child's pipes, and to wake the child, costs more than its handler.
So when a task of a short kind gets a slot, tasks of short kinds that wait for slots are sent with it. A chunk
is one job of the pool, and its tasks run one after the other. A task that was delivered before is sent alone:
it may have killed its child, and must not kill one that others share. If a task of a chunk turns out long,
the tasks behind it are reclaimed, and wait for a slot again.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from millpond.broker.celery.prefork_pool import waiting_for_slots
from millpond.worker.dispatch.chunk_job import ChunkJob, make_memories
from millpond.worker.dispatch.slot_request import SlotRequest

#: A kind is short while its tasks take less than this on average.
SHORT_SECONDS = 0.005

#: The maximum of tasks of a chunk.
LONGEST_CHUNK = 8

#: A task that takes longer has turned out long.
LONG_SECONDS = 0.05

#: After this time a killed child has ended, and the memory of its chunk can be used again.
_KILLED_CHILD_SECONDS = 60.0

#: The weight of the last run in the mean run time of a kind.
WEIGHT = 0.2


class Chunks:
    """The kinds that are short, and the chunks that are under way in this process."""

    def __init__(self, pool: Any) -> None:
        #: The mean run time of each kind. A kind without a run counts as long.
        self.mean_seconds = defaultdict[str, float](lambda: SHORT_SECONDS)
        #: Chunks whose children may have tasks that they have not started.
        self._under_way: set[ChunkJob] = set()
        self._pool = pool
        #: The free memories, each with the time from which it can be used (monotonic seconds), the earliest
        #: first.
        self._free = deque((0.0, memory) for memory in make_memories(pool))
        self._can_share = bool(self._free)
        self._call_after: Callable[[float, Callable[[], None]], Any] | None = None
        self._start_reclaimed: Callable[[list[SlotRequest]], None]
        self._check_scheduled = False

    def start(
        self,
        call_after: Callable[[float, Callable[[], None]], Any],
        start_reclaimed: Callable[[list[SlotRequest]], None],
    ) -> None:
        """Begin to make chunks, and to check them every `LONG_SECONDS` while some are under way.

        `call_after(seconds, function)` sets a timer. `start_reclaimed` starts the tasks that a check
        reclaims.
        """
        self._call_after, self._start_reclaimed = call_after, start_reclaimed
        if self._can_share:
            self._slots, self._waiting = waiting_for_slots(self._pool)
        self._check_scheduled = False
        self._check_chunks_later()

    def stop(self) -> None:
        """Reclaim all tasks that no child has started. Make and check no chunks any more."""
        self._call_after = None
        self._reclaim_unstarted(list(self._under_way))

    def make_chunk(self, request: SlotRequest) -> ChunkJob | None:
        """Return a chunk of this task and tasks that wait for slots, or None if the task is sent alone.

        The tasks of the chunk are removed from those that wait. They are as many as each slot would get of
        the waiting tasks, and at most `LONGEST_CHUNK`.
        """
        if not self._may_share_child(request) or self._call_after is None or not self._free:
            return None
        if self._free[0][0] > monotonic():
            return None
        waiting, members = self._waiting, [request]
        share = -(-len(waiting) // max(1, self._slots.initial_value))
        while waiting and len(members) <= min(share, LONGEST_CHUNK - 1):
            _callback, (other, *_), _kwargs = waiting[0]
            if not (self._may_share_child(other) and other.may_start() and not other.revoked()):
                break
            waiting.popleft()
            members.append(other)
        if len(members) == 1:
            return None
        chunk = ChunkJob(members, self._free.popleft()[1], self._end_chunk)
        self._under_way.add(chunk)
        self._check_chunks_later()
        return chunk

    def reclaim_unstarted(self, concerns: Callable[[SlotRequest], bool]) -> list[SlotRequest]:
        """Return the unstarted tasks of every chunk that has a task for which `concerns` is true.

        Their children can no longer start these tasks.
        """
        return self._reclaim_unstarted(
            [chunk for chunk in self._under_way if any(map(concerns, chunk.members))]
        )

    def prepare_to_kill(self, request: SlotRequest) -> bool:
        """Reclaim the unstarted tasks of this task's chunk, and start them elsewhere.

        Return True if the child may be killed for this task: it runs the task now, or has it alone.
        """
        chunk = request.chunk
        if chunk is None:
            return True
        self._start_reclaimed(self._reclaim_unstarted([chunk]))
        return chunk.last_unsettled is request

    def _reclaim_unstarted(self, chunks: list[ChunkJob]) -> list[SlotRequest]:
        """Return the unstarted tasks of these chunks. The chunks are not checked any more."""
        self._under_way.difference_update(chunks)
        return [request for chunk in chunks for request in chunk.reclaim_unstarted()]

    def _check_chunks_later(self) -> None:
        """Set the timer of the next check, unless it is set or no chunk is under way."""
        if self._under_way and not self._check_scheduled and self._call_after is not None:
            self._check_scheduled = True
            self._call_after(LONG_SECONDS, self._check_chunks)

    def _check_chunks(self) -> None:
        """Settle the tasks that have ended, and reclaim those behind a task that turned out long."""
        self._check_scheduled = False
        if self._call_after is None:
            return
        for chunk in tuple(self._under_way):
            chunk.settle_ended()
        long_since = monotonic() - LONG_SECONDS
        reclaimed = self._reclaim_unstarted(
            [chunk for chunk in self._under_way if chunk.running_since <= long_since]
        )
        self._check_chunks_later()
        self._start_reclaimed(reclaimed)

    def _end_chunk(self, chunk: ChunkJob, succeeded: bool) -> None:
        """Free the memory of a chunk: at once if it `succeeded`, else once its child is surely dead."""
        self._under_way.discard(chunk)
        if succeeded:
            self._free.appendleft((0.0, chunk.memory))
        else:
            self._free.append((monotonic() + _KILLED_CHILD_SECONDS, chunk.memory))

    def _may_share_child(self, request: SlotRequest) -> bool:
        """True if the task is of a short kind, was not delivered before, and its id has no space.

        The ids of a chunk are joined by spaces.
        """
        is_short = self.mean_seconds[request.kind] < SHORT_SECONDS
        return is_short and request.delivery.deliveries == 0 and " " not in request.id
