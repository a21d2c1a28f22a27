"""Chunks: tasks that share a child, and tasks that are reclaimed before they start."""

from collections import deque
from collections.abc import Callable
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from millpond.broker.outcomes import SUCCEEDED
from millpond.worker.dispatch.chunk_job import RESULT_BYTES, ChunkJob
from millpond.worker.dispatch.chunks import LONGEST_CHUNK, SHORT_SECONDS, Chunks
from tests.harness.manual_consumer import delivery_of

ANSWER = (SUCCEEDED, 0.5, 0.5)
SLOTS = SimpleNamespace(_waiting=deque[Any](), initial_value=1)
POOL = SimpleNamespace(
    uses_semaphore=True, forking_enable=True, limit=1, _pool=SimpleNamespace(_putlock=SLOTS)
)


class Request(SimpleNamespace):
    """A stand-in for a request, which records its calls in `calls`."""

    def __init__(self, id: str, **more: Any) -> None:
        calls: list[Any] = []
        names = ("release", "redeliver", "on_success", "forget_start")
        recorders = {name: self._recorder(calls, name) for name in names}
        super().__init__(
            id=id,
            name="short",
            kind="short",
            delivery=delivery_of("1/0", id),
            limits=(None, None),
            calls=calls,
        )
        self.__dict__.update(
            {
                "time_start": None,
                "chunk": None,
                "may_start": lambda: True,
                "record_start": lambda *_: None,
                "revoked": lambda: False,
                **recorders,
                **more,
            }
        )

    @staticmethod
    def _recorder(calls: list[Any], name: str) -> Callable[..., None]:
        return lambda *given: calls.append((name, *given[:1]))

    __hash__ = object.__hash__


class Timers:
    """Timers that a test fires, and the ids of the tasks that were started again."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.started: list[str] = []

    def call_after(self, seconds: float, call: Callable[[], None]) -> None:
        """Keep a timer until `fire`."""
        self.due.append(call)

    def start(self, taken: list[Any]) -> None:
        """Record the ids of tasks that wait for a slot again."""
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
def chunks(timers: Timers) -> Chunks:
    """The chunks of a process that has run tasks of one kind, which is short."""
    made = Chunks(POOL)
    made.mean_seconds["short"] = SHORT_SECONDS / 2
    made.start(timers.call_after, timers.start)
    return made


def send_chunk(chunks: Chunks, *ids: str) -> ChunkJob | None:
    """Send a chunk of the first task and those that wait for its slot. None: the first is sent alone."""
    first, *others = [Request(id) for id in ids]
    SLOTS._waiting.clear()
    SLOTS._waiting.extend((None, (other,), {}) for other in others)
    chunk = chunks.make_chunk(first)  # type: ignore[arg-type]
    if chunk is not None:
        chunk.send(SimpleNamespace(apply_async=lambda *_, **__: None))
    return chunk


def ids(chunk: ChunkJob | None) -> list[str]:
    """Return the ids of the tasks that were not reclaimed."""
    return [] if chunk is None else [member.id for member in chunk.members]


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the clock forward by a second."""
    monkeypatch.setattr("millpond.worker.dispatch.chunks.monotonic", lambda: monotonic() + 1.0)


def test_short_tasks_that_wait_are_sent_together(chunks: Chunks) -> None:
    """All that wait, up to eight. A task of a long kind is sent alone."""
    assert ids(send_chunk(chunks, "a", "b", "c")) == ["a", "b", "c"]
    assert len(ids(send_chunk(chunks, *"abcdefghijkl"))) == LONGEST_CHUNK
    chunks.mean_seconds["short"] = 1.0
    assert send_chunk(chunks, "a", "b") is None


def test_tasks_behind_a_long_one_are_reclaimed(
    chunks: Chunks, timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended tasks are settled, the running one goes on, and the others wait for a slot."""
    chunk = send_chunk(chunks, "a", "b", "c", "d")
    assert chunk is not None
    ended, running, *others = chunk.members
    child = chunk.memory
    child.begin_chunk()
    child.claim_task()
    child.keep_result(ANSWER)
    child.claim_task()
    later(monkeypatch)
    timers.fire()
    assert (ended.calls, running.calls) == ([("on_success", ANSWER)], [])
    assert timers.started == ["c", "d"]
    assert all((other.in_child, other.chunk) == (False, None) for other in others)
    assert chunk.last_unsettled is running
    assert not child.claim_task()
    assert timers.due == [], "no task is left to reclaim"
    chunk.on_success([ANSWER, ANSWER])
    assert ended.calls == running.calls == [("on_success", ANSWER)]


def test_a_chunk_whose_tasks_are_short_is_kept(
    chunks: Chunks, timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checked again, however long all its tasks take. Without a chunk there is no timer."""
    chunk = send_chunk(chunks, "a", "b")
    assert chunk is not None
    timers.fire()
    assert (timers.started, len(timers.due)) == ([], 1)
    child = chunk.memory
    child.begin_chunk()
    child.claim_task()
    child.keep_result(ANSWER)
    monkeypatch.setattr("millpond.worker.dispatch.chunks.monotonic", lambda: monotonic() + 0.5)
    timers.fire()
    assert (timers.started, len(timers.due)) == ([], 1)
    chunk.on_success([ANSWER, ANSWER])
    timers.fire()
    assert timers.due == []


def test_the_death_of_a_child_counts_a_delivery_of_the_running_task_alone(chunks: Chunks) -> None:
    """Ended tasks are settled, and those that were not started are released."""
    chunk = send_chunk(chunks, "a", "b", "c")
    assert chunk is not None
    members = list(chunk.members)
    child = chunk.memory
    child.begin_chunk()
    child.claim_task()
    child.keep_result(ANSWER)
    child.claim_task()
    lost = SimpleNamespace(exception=RuntimeError("killed"))
    chunk.on_failure(lost)
    assert [each.calls for each in members] == [
        [("on_success", ANSWER)],
        [("redeliver", lost)],
        [("forget_start",), ("release",)],
    ]


def test_a_task_whose_long_result_dies_with_the_child_pays_for_no_other_task(chunks: Chunks) -> None:
    """It runs again, because its result is lost. Its delivery is not counted, because it has ended well."""
    chunk = send_chunk(chunks, "a", "b")
    assert chunk is not None
    members = list(chunk.members)
    child = chunk.memory
    child.begin_chunk()
    child.claim_task()
    child.keep_result("x" * RESULT_BYTES)
    child.claim_task()
    lost = SimpleNamespace(exception=RuntimeError("killed"))
    chunk.on_failure(lost)
    assert [each.calls for each in members] == [[("release",)], [("redeliver", lost)]]


def test_only_chunks_with_a_task_that_is_concerned_are_reclaimed(chunks: Chunks) -> None:
    """All their tasks that were not started are, also those that are not concerned."""
    send_chunk(chunks, "a", "b")
    chunk = send_chunk(chunks, "c", "d")
    assert [each.id for each in chunks.reclaim_unstarted(lambda request: request.id == "d")] == ["c", "d"]
    assert ids(chunk) == []
    assert [each.id for each in chunks.reclaim_unstarted(lambda request: request.id == "b")] == ["a", "b"]


def test_a_stop_reclaims_all_and_makes_no_more_chunks(chunks: Chunks, timers: Timers) -> None:
    """Tasks that were not started are reclaimed, later ones are sent alone, and no timer is set."""
    chunk = send_chunk(chunks, "a", "b")
    chunks.stop()
    assert ids(chunk) == []
    assert send_chunk(chunks, "c", "d") is None
    timers.fire()
    assert (timers.started, timers.due) == ([], [])


def test_the_memory_of_a_killed_child_is_not_used_for_a_while(
    chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child may not have ended yet. Tasks are sent alone while no other memory is free."""
    lost = SimpleNamespace(exception=RuntimeError("killed"))
    used = []
    for _ in range(2):
        chunk = send_chunk(chunks, "a", "b")
        assert chunk is not None
        used.append(chunk.memory)
        chunk.on_failure(lost)
    assert used[0] is not used[1]
    assert send_chunk(chunks, "a", "b") is None
    monkeypatch.setattr("millpond.worker.dispatch.chunks.monotonic", lambda: float("inf"))
    chunk = send_chunk(chunks, "a", "b")
    assert chunk is not None
    assert chunk.memory is used[0]
    chunk.on_success([ANSWER, ANSWER])


def test_a_child_is_not_killed_for_a_task_that_it_has_not_started(chunks: Chunks, timers: Timers) -> None:
    """Such a task is reclaimed and waits for a slot. For a running task the child may be killed."""
    chunk = send_chunk(chunks, "a", "b", "c")
    assert chunk is not None
    a, b, _c = chunk.members
    assert chunk.memory.claim_task()
    assert not chunks.prepare_to_kill(b)
    assert timers.started == ["b", "c"]
    assert chunks.prepare_to_kill(a)
    assert timers.started == ["b", "c"]
    assert chunks.prepare_to_kill(Request("alone"))  # type: ignore[arg-type]
