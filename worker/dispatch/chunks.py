"""Send short tasks to a prefork child several at a time.

A task of a millisecond costs more on its way through the child's pipes, and in waking the child up, than in
its handler. So when a slot comes free and its kind is known to be short, tasks that wait behind it are sent
with it. A chunk is one job of the pool, and its tasks run one after the other. A task that was delivered
before is sent alone: it may have killed its child, and must not kill others again. Tasks behind one that
turned out long are reclaimed, and wait for a slot again.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from millpond.broker.celery.prefork_pool import waiting_for_slots
from millpond.worker.dispatch.chunk_job import ChunkJob, memories_for
from millpond.worker.dispatch.slot_request import SlotRequest

#: A kind is short while its tasks take less than this on average, and no chunk has more tasks than this.
SHORT_SECONDS = 0.005
LONGEST_CHUNK = 8

#: A task that takes longer has turned out long.
LONG_SECONDS = 0.05

#: A child that was killed, or is being killed, is gone after this.
_GONE_SECONDS = 60.0

#: How much the last run counts in a kind's mean.
WEIGHT = 0.2


class Chunks:
    """The kinds that are short, and the chunks that are under way in this process."""

    def __init__(self, pool: Any) -> None:
        #: The mean run time of each kind, which must show that it is short.
        self.mean_seconds = defaultdict[str, float](lambda: SHORT_SECONDS)
        #: Chunks whose children may have tasks that they have not started.
        self._under_way: set[ChunkJob] = set()
        self._pool = pool
        self._free = deque((0.0, each) for each in memories_for(pool))
        self._shares = bool(self._free)
        self._call_after: Callable[[float, Callable[[], None]], Any] | None = None
        self._start: Callable[[list[SlotRequest]], None]
        self._will_look = False

    def watch(
        self,
        call_after: Callable[[float, Callable[[], None]], Any],
        start: Callable[[list[SlotRequest]], None],
    ) -> None:
        """Check the chunks under way by these timers. `start` runs the tasks that were reclaimed."""
        self._call_after, self._start = call_after, start
        if self._shares:
            self._slots, self._waiting = waiting_for_slots(self._pool)
        self._will_look = False
        self._check_chunks_later()

    def stop(self) -> None:
        """Reclaim all tasks that no child has started, and check no chunk any more."""
        self._call_after = None
        self._reclaim_unstarted(list(self._under_way))

    def job_for(self, request: SlotRequest) -> ChunkJob | None:
        """Return a chunk of this task and tasks that wait for a slot, or None if it is sent alone."""
        if not self._may_share(request) or self._call_after is None or not self._free:
            return None
        if self._free[0][0] > monotonic():
            return None
        waiting, members = self._waiting, [request]
        share = -(-len(waiting) // max(1, self._slots.initial_value))
        while waiting and len(members) <= min(share, LONGEST_CHUNK - 1):
            _callback, (other, *_), _kwargs = waiting[0]
            if not (self._may_share(other) and other.may_start() and not other.revoked()):
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

        Their children can no longer start them.
        """
        return self._reclaim_unstarted(
            [chunk for chunk in self._under_way if any(map(concerns, chunk.members))]
        )

    def owns_its_child(self, request: SlotRequest) -> bool:
        """True if the child runs this task now. Reclaims the tasks that the child has not started."""
        chunk = request.chunk
        if chunk is None:
            return True
        self._start(self._reclaim_unstarted([chunk]))
        return chunk.running is request

    def _reclaim_unstarted(self, chunks: list[ChunkJob]) -> list[SlotRequest]:
        """Return the unstarted tasks of these chunks, which are no longer under way."""
        self._under_way.difference_update(chunks)
        return [request for chunk in chunks for request in chunk.reclaim_unstarted()]

    def _check_chunks_later(self) -> None:
        """Schedule a check unless one is scheduled or nothing is under way."""
        if self._under_way and not self._will_look and self._call_after is not None:
            self._will_look = True
            self._call_after(LONG_SECONDS, self._check_chunks)

    def _check_chunks(self) -> None:
        """Settle the tasks that the children have ended, and reclaim tasks behind one that runs for long."""
        self._will_look = False
        if self._call_after is None:
            return
        for chunk in tuple(self._under_way):
            chunk.settle_ended()
        begun = monotonic() - LONG_SECONDS
        taken = self._reclaim_unstarted([chunk for chunk in self._under_way if chunk.running_since <= begun])
        self._check_chunks_later()
        self._start(taken)

    def _end_chunk(self, chunk: ChunkJob, succeeded: bool) -> None:
        """Free the memory of a chunk. The memory of a failed child is free only after a while."""
        self._under_way.discard(chunk)
        if succeeded:
            self._free.appendleft((0.0, chunk.memory))
        else:
            self._free.append((monotonic() + _GONE_SECONDS, chunk.memory))

    def _may_share(self, request: SlotRequest) -> bool:
        """True if the task is of a short kind and was not delivered before."""
        short = self.mean_seconds[request.kind] < SHORT_SECONDS
        return short and request.delivery.deliveries == 0 and " " not in request.id
