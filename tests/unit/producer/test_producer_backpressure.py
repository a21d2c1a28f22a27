"""Blocking, rejecting and waiting in turn, against a queue made of a number."""

from collections.abc import Sequence
from typing import Any

import pytest

from broker.connection import Store
from broker.messages import Outgoing
from broker.publishing import Full, Outcome, Taken
from producer import backpressure
from producer.backpressure import LONGEST_PAUSE_SECONDS, Pace, offer

STORE: Any = Store(client=None)  # type: ignore[arg-type]


class Queue:
    """Stand for a bounded queue that is emptied by `sleep`: `drained` messages a wait."""

    def __init__(self, bound: int, drained: int = 0) -> None:
        self.bound, self.drained, self.held = bound, drained, list[str]()
        self.taken, self.asked, self.waits = list[str](), list[int](), list[float]()

    def publish(self, store: Store, messages: Sequence[Outgoing], *, policy: str) -> list[Outcome]:
        self.asked.append(len(messages))
        return [self._take(message) for message in messages]

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        del self.held[: self.drained]

    def _take(self, message: Outgoing) -> Outcome:
        if len(self.held) >= self.bound:
            return Full(message.id, message.queue, self.bound, len(self.held))
        self.held.append(message.id)
        self.taken.append(message.id)
        return Taken(message.id)


def messages(count: int) -> list[Outgoing]:
    return [Outgoing("q", str(n), "{}") for n in range(count)]


def offered(queue: Queue, count: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Outcome]:
    monkeypatch.setattr(backpressure, "publish", queue.publish)
    given = {"overflow": "block", "timeout_seconds": None, "pace": Pace(), "sleep": queue.sleep} | options
    return list(offer(STORE, messages(count), **given))


def test_block_waits_until_everything_is_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `block` every message is taken, once, in the order given, though the queue holds few."""
    queue = Queue(bound=10, drained=3)
    outcomes = offered(queue, 100, monkeypatch)
    assert outcomes == [Taken(str(n)) for n in range(100)]
    assert queue.taken == [str(n) for n in range(100)]


def test_a_full_queue_is_asked_with_few_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer that waits offers about what it found room for, not its whole chunk each time."""
    queue = Queue(bound=10, drained=1)
    offered(queue, 60, monkeypatch)
    assert queue.asked[0] == 60
    assert max(queue.asked[2:]) <= 8


def test_pauses_grow_while_nothing_moves_and_stay_bounded() -> None:
    """While nothing is taken the pauses grow to a bound, and no longer."""
    pace = Pace()
    pauses = [pace.learn(1, 0) for _ in range(20)]
    assert pauses[0] < 0.02
    assert max(pauses) <= LONGEST_PAUSE_SECONDS
    assert min(pauses[-3:]) >= LONGEST_PAUSE_SECONDS / 2


def test_block_gives_up_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `timeout_seconds` without room what is left is refused, and what was taken stays taken."""
    queue = Queue(bound=2)
    outcomes = offered(queue, 4, monkeypatch, timeout_seconds=0.02)
    assert outcomes[:2] == [Taken("0"), Taken("1")]
    assert all(isinstance(outcome, Full) for outcome in outcomes[2:])
    assert len(queue.asked) <= len(queue.waits) + 1  # between two questions there is always a pause


@pytest.mark.parametrize("options", [{"overflow": "reject"}, {"timeout_seconds": 0.0}])
def test_no_time_means_no_wait(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`reject`, and `block` without time, never wait."""
    queue = Queue(bound=1)
    outcomes = offered(queue, 2, monkeypatch, **options)
    assert [type(outcome) for outcome in outcomes] == [Taken, Full]
    assert queue.waits == []
