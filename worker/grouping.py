"""Hand short tasks to a prefork child several at a time.

A task of a millisecond costs more on its way through the child's pipes, and in waking the child up, than in
its body. So when a slot comes free and its kind is known to be short, tasks that wait behind it go along: a
piece is one job of the pool, run one after the other. A task that was delivered before goes alone, lest one
that kills its child takes others with it again; so does every task of a piece that was cut short.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from billiard.exceptions import Terminated

if TYPE_CHECKING:
    from worker.request import PondRequest

#: A kind is short while its tasks take less than this on average, and no piece has more tasks than this.
SHORT_SECONDS = 0.005
LONGEST_PIECE = 8

#: How much the last run counts in a kind's average.
_WEIGHT = 0.2

Words = tuple[str, str, dict[str, Any], Any]


class Grouper:
    """Know which kinds are short, and which pieces are under way in this process."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._under_way: set[Piece] = set()
        self._when_quiet: list[Callable[[], None]] = []

    def learn(self, kind: str, seconds: float) -> None:
        """Take note of how long a task took."""
        before = self._seconds.get(kind, SHORT_SECONDS)  # a kind must show that it is short
        self._seconds[kind] = before + _WEIGHT * (seconds - before)

    def piece_for(self, request: "PondRequest", semaphore: Any) -> "Piece | None":
        """Take company for a task out of those that wait for a slot; None when it goes alone."""
        if self._when_quiet or not self._fits(request):
            return None
        share = -(-len(semaphore._waiting) // max(1, semaphore.initial_value))
        members = [request]
        while semaphore._waiting and len(members) <= min(share, LONGEST_PIECE - 1):
            _callback, (other, *_), _kwargs = semaphore._waiting[0]
            if not (self._fits(other) and other.may_start() and not other.revoked()):
                break
            semaphore._waiting.popleft()
            members.append(other)
        return Piece(self, members) if len(members) > 1 else None

    def call_when_quiet(self, confirm: Callable[[], None]) -> None:
        """Call back once the pieces under way have ended; no new one is made until then.

        Who confirms that nothing cancelled starts must wait for tasks that a child already has.
        """
        self._when_quiet.append(confirm)
        self._end(None)

    def begin(self, piece: "Piece") -> None:
        """Note a piece that is handed to the pool."""
        self._under_way.add(piece)

    def _end(self, piece: "Piece | None") -> None:
        self._under_way.discard(piece)
        if not self._under_way:
            waiting, self._when_quiet = self._when_quiet, []
            for confirm in waiting:
                confirm()

    def _fits(self, request: "PondRequest") -> bool:
        short = self._seconds.get(request.name, SHORT_SECONDS) < SHORT_SECONDS
        return short and request.deliveries == 0 and " " not in request.id


class Piece:
    """Several tasks on their way through one child, as one job of the pool."""

    def __init__(self, grouper: Grouper, members: "list[PondRequest]") -> None:
        self._grouper = grouper
        self._members = members

    def send(self, pool: Any) -> Any:
        """Hand the piece to the pool.

        It is killed at the first limit of any member, and each then goes alone.
        """
        for request in self._members:
            request.in_child, request.piece = True, self
        self._grouper.begin(self)
        limits = [limit for request in self._members for limit in request.limits if limit]
        return pool.apply_async(
            run_all,
            args=([request.words for request in self._members],),
            accept_callback=self.on_accepted,
            callback=self.on_success,
            error_callback=self.on_failure,
            timeout=min(limits, default=None),
            correlation_id=" ".join(request.id for request in self._members),
        )

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Tell each member that it runs, or is about to."""
        for request in self._members:
            request.on_accepted(pid, time_accepted)

    def on_success(self, answers: Any, **_: Any) -> None:
        """Settle each member by its own answer."""
        if not isinstance(answers, list):
            self.on_failure(answers)
            return
        for request, answer in zip(self._members, answers, strict=True):
            request.on_success(answer)
        self._grouper._end(self)

    def on_failure(self, exc_info: Any, **_: Any) -> None:
        """Hand every member out again, its delivery counted: the child died, or one of them took too long.

        When one was ended on purpose it is cancelled, and no delivery of the others counts.
        """
        error = exc_info.exception
        on_purpose = isinstance(getattr(error, "exc", error), Terminated)
        for request in self._members:
            if on_purpose:
                request.give_back()
            else:
                request.hand_out_again(exc_info)
        self._grouper._end(self)


def run_all(tasks: list[Words]) -> list[Any]:
    """Run tasks one after the other in a child, and answer for each."""
    from worker.slot import run

    return [run(*words) for words in tasks]
