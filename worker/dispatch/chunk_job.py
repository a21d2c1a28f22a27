"""Run several tasks in one prefork child, as one job of its pool.

A task that turns out long delays no other: the worker takes back the tasks behind it, and settles those that
ended before it. When the child dies, only the task that ran in it counts as delivered.
"""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from billiard.exceptions import Terminated

from millpond.broker.delivery import Delivery
from millpond.worker.celery.slot import Answer, run
from millpond.worker.dispatch.chunk_claims import Claims, claims
from millpond.worker.dispatch.slot_request import SlotRequest


class ChunkJob:
    """The tasks of a chunk that are in the child, and the number of these that are settled."""

    def __init__(
        self, members: list[SlotRequest], shared: Claims, on_end: "Callable[[ChunkJob, bool], None]"
    ) -> None:
        #: Those that were not taken back, in order.
        self.members = members
        self.claims = shared
        #: Since when, at the latest, the child has been with the task that it runs (monotonic seconds).
        self.running_since = monotonic()
        self._settled = 0
        self._on_end = on_end

    def send(self, pool: Any) -> Any:
        """Send the chunk to the pool.

        It is killed at the first limit of any member, and each then goes alone.
        """
        for request in self.members:
            request.in_child, request.chunk = True, self
        self.claims.offer(len(self.members))
        limits = [limit for request in self.members for limit in request.limits if limit]
        return pool.apply_async(
            run_all,
            args=(self.claims.number, [request.delivery for request in self.members]),
            accept_callback=self.on_accepted,
            callback=self.on_success,
            error_callback=self.on_failure,
            timeout=min(limits, default=None),
            correlation_id=" ".join(request.id for request in self.members),
        )

    @property
    def running(self) -> SlotRequest | None:
        """Return the task that runs in the child, once all behind it were taken back."""
        return self.members[-1] if len(self.members) > self._settled else None

    def settle_ended(self) -> None:
        """Settle the tasks that the child has ended so far."""
        self._settle(self.claims.answers())

    def take_back(self) -> list[SlotRequest]:
        """Take back the tasks that the child has not started, and settle those that it has ended."""
        first = len(self.members) - self.claims.take_back()
        taken, self.members = self.members[first:], self.members[:first]
        for request in taken:
            request.in_child, request.chunk = False, None
            request.unaccept()
        self.settle_ended()
        return taken

    def _settle(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            request = self.members[self._settled]
            self._settled += 1
            self.running_since += answer[1]
            request.on_success(answer)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Mark each member as running, or about to."""
        self.running_since = time_accepted
        for request in self.members:
            request.on_accepted(pid, time_accepted)

    def on_success(self, answers: Any, **_: Any) -> None:
        """Settle each member by its own answer."""
        if not isinstance(answers, list):
            self.on_failure(answers)
            return
        self._settle(answers[self._settled :])
        self._on_end(self, True)

    def on_failure(self, exc_info: Any, **_: Any) -> None:
        """Hand the member that ran out again, its delivery counted: the child died, or it took too long.

        What had ended is settled, and what had not started is given back. When the child was ended on
        purpose it was because of the one that ran, which has ended then.
        """
        error = exc_info.exception
        on_purpose = isinstance(getattr(error, "exc", error), Terminated)
        for request in self.take_back():
            request.give_back()
        for request in self.members[self._settled :]:
            if not on_purpose:
                request.hand_out_again(exc_info)
            elif request is self.running:
                request.on_failure(exc_info)
            else:  # it ended and its answer could not be kept
                request.give_back()
        self._on_end(self, False)


def run_all(number: int, tasks: list[Delivery]) -> list[Answer]:
    """Run tasks one after the other in a child, until the rest was taken back; return an answer for each."""
    shared, answers = claims(number), list[Answer]()
    shared.begin()
    for delivery in tasks:
        if not shared.claim():
            break
        answers.append(run(delivery))
        shared.keep(answers[-1])
    return answers
