"""Chunks: tasks that may share a child, and tasks that are taken back before they run."""

from collections import deque
from collections.abc import Callable
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from millpond.broker.outcomes import SUCCEEDED
from millpond.worker.dispatch.chunk_job import ChunkJob
from millpond.worker.dispatch.chunks import LONGEST_CHUNK, SHORT_SECONDS, Chunks
from tests.harness.manual_consumer import delivery_of

ANSWER = (SUCCEEDED, 0.5, 0.5)
SLOTS = SimpleNamespace(_waiting=deque[Any](), initial_value=1)
POOL = SimpleNamespace(
    uses_semaphore=True, forking_enable=True, limit=1, _pool=SimpleNamespace(_putlock=SLOTS)
)


class Request(SimpleNamespace):
    """A stand-in for a request, which notes the calls it gets."""

    def __init__(self, id: str, **more: Any) -> None:
        told: list[Any] = []
        names = ("release", "redeliver", "on_success", "forget_start")
        tell = {name: self._teller(told, name) for name in names}
        super().__init__(
            id=id,
            name="short",
            kind="short",
            delivery=delivery_of("1/0", id),
            limits=(None, None),
            told=told,
        )
        self.__dict__.update(
            {
                "time_start": None,
                "chunk": None,
                "may_start": lambda: True,
                "record_start": lambda *_: None,
                "revoked": lambda: False,
                **tell,
                **more,
            }
        )

    @staticmethod
    def _teller(told: list[Any], name: str) -> Callable[..., None]:
        return lambda *given: told.append((name, *given[:1]))

    __hash__ = object.__hash__


class Timers:
    """Timers that a test fires."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.started: list[str] = []

    def call_after(self, seconds: float, call: Callable[[], None]) -> None:
        """Note a timer."""
        self.due.append(call)

    def start(self, taken: list[Any]) -> None:
        """Note the tasks that are to wait for a slot again."""
        self.started += [request.id for request in taken]

    def fire(self) -> None:
        """Fire the timers that are due."""
        due, self.due = self.due, []
        for call in due:
            call()


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def grouper(timers: Timers) -> Chunks:
    """Return a grouper that knows a short kind."""
    made = Chunks(POOL)
    made.mean_seconds["short"] = SHORT_SECONDS / 2
    made.start(timers.call_after, timers.start)
    return made


def piece_of(grouper: Chunks, *ids: str) -> ChunkJob | None:
    """Start the first while the others wait for the one slot; send the chunk to a pool."""
    first, *others = [Request(id) for id in ids]
    SLOTS._waiting.clear()
    SLOTS._waiting.extend((None, (other,), {}) for other in others)
    piece = grouper.make_chunk(first)  # type: ignore[arg-type]
    if piece is not None:
        piece.send(SimpleNamespace(apply_async=lambda *_, **__: None))
    return piece


def ids(piece: ChunkJob | None) -> list[str]:
    """Name the members that are still in it."""
    return [] if piece is None else [member.id for member in piece.members]


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass a second."""
    monkeypatch.setattr("millpond.worker.dispatch.chunks.monotonic", lambda: monotonic() + 1.0)


def test_short_tasks_that_wait_go_along(grouper: Chunks) -> None:
    """As many as wait, up to eight; a kind that is not known to be short goes alone."""
    assert ids(piece_of(grouper, "a", "b", "c")) == ["a", "b", "c"]
    assert len(ids(piece_of(grouper, *"abcdefghijkl"))) == LONGEST_CHUNK
    grouper.mean_seconds["short"] = 1.0
    assert piece_of(grouper, "a", "b") is None


def test_what_is_behind_a_task_that_turned_out_long_is_taken_back(
    grouper: Chunks, timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended tasks are settled, the running one goes on, the rest waits for a slot."""
    piece = piece_of(grouper, "a", "b", "c", "d")
    assert piece is not None
    ended, running, *others = piece.members
    child = piece.memory
    child.begin_chunk()
    child.claim_task()
    child.keep_result(ANSWER)
    child.claim_task()
    later(monkeypatch)
    timers.fire()
    assert (ended.told, running.told) == ([("on_success", ANSWER)], [])
    assert timers.started == ["c", "d"]
    assert all((other.in_child, other.chunk) == (False, None) for other in others)
    assert piece.running is running
    assert not child.claim_task()
    assert timers.due == [], "nothing more is to be taken back"
    piece.on_success([ANSWER, ANSWER])
    assert ended.told == running.told == [("on_success", ANSWER)]


def test_a_piece_that_gets_on_is_left_alone(
    grouper: Chunks, timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again later, however long all of it takes; nobody looks when there is none."""
    piece = piece_of(grouper, "a", "b")
    assert piece is not None
    timers.fire()
    assert (timers.started, len(timers.due)) == ([], 1)
    child = piece.memory
    child.begin_chunk()
    child.claim_task()
    child.keep_result(ANSWER)
    monkeypatch.setattr("millpond.worker.dispatch.chunks.monotonic", lambda: monotonic() + 0.5)
    timers.fire()
    assert (timers.started, len(timers.due)) == ([], 1)
    piece.on_success([ANSWER, ANSWER])
    timers.fire()
    assert timers.due == []


def test_when_its_child_dies_only_what_ran_counts_as_delivered(grouper: Chunks) -> None:
    """Ended tasks count, and those not started go back."""
    piece = piece_of(grouper, "a", "b", "c")
    assert piece is not None
    members = list(piece.members)
    child = piece.memory
    child.begin_chunk()
    child.claim_task()
    child.keep_result(ANSWER)
    child.claim_task()
    lost = SimpleNamespace(exception=RuntimeError("killed"))
    piece.on_failure(lost)
    assert [each.told for each in members] == [
        [("on_success", ANSWER)],
        [("redeliver", lost)],
        [("forget_start",), ("release",)],
    ]


def test_only_pieces_that_something_concerns_are_taken_back(grouper: Chunks) -> None:
    """Of these everything that is not started is, whether it concerns it or not."""
    piece_of(grouper, "a", "b")
    piece = piece_of(grouper, "c", "d")
    assert [each.id for each in grouper.reclaim_unstarted(lambda request: request.id == "d")] == ["c", "d"]
    assert ids(piece) == []
    assert [each.id for each in grouper.reclaim_unstarted(lambda request: request.id == "b")] == ["a", "b"]


def test_one_that_stops_takes_back_all_and_makes_no_more(grouper: Chunks, timers: Timers) -> None:
    """No chunk is looked after any more: `stop` takes back the tasks that were not started."""
    piece = piece_of(grouper, "a", "b")
    grouper.stop()
    assert ids(piece) == []
    assert piece_of(grouper, "c", "d") is None
    timers.fire()
    assert (timers.started, timers.due) == ([], [])


def test_the_claims_of_a_dead_child_are_not_used_for_a_while(
    grouper: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that is being killed may still look at them: tasks go alone when there are no others."""
    lost = SimpleNamespace(exception=RuntimeError("killed"))
    used = []
    for _ in range(2):
        piece = piece_of(grouper, "a", "b")
        assert piece is not None
        used.append(piece.memory)
        piece.on_failure(lost)
    assert used[0] is not used[1]
    assert piece_of(grouper, "a", "b") is None
    monkeypatch.setattr("millpond.worker.dispatch.chunks.monotonic", lambda: float("inf"))
    piece = piece_of(grouper, "a", "b")
    assert piece is not None
    assert piece.memory is used[0]
    piece.on_success([ANSWER, ANSWER])


def test_a_child_is_not_ended_for_a_task_that_it_has_not_started(grouper: Chunks, timers: Timers) -> None:
    """A task that waits in a child is taken back and starts again, if it may; a running one has its child."""
    piece = piece_of(grouper, "a", "b", "c")
    assert piece is not None
    a, b, _c = piece.members
    assert piece.memory.claim_task()
    assert not grouper.prepare_to_kill(b)
    assert timers.started == ["b", "c"]
    assert grouper.prepare_to_kill(a)
    assert timers.started == ["b", "c"]
    assert grouper.prepare_to_kill(Request("alone"))  # type: ignore[arg-type]
