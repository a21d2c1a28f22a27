"""Blocking in the line, against a queue made of a number: the calls, and their times."""

from collections.abc import Sequence
from typing import Any

import pytest

from millpond.broker.connection import Store
from millpond.broker.outgoing import Outgoing
from millpond.broker.publish import NOBODY, Accepted, Answer, Caller, Full
from millpond.producer import backpressure
from millpond.producer.backpressure import AdmissionLine, FlowControl, send_blocking

STORE: Any = Store(client=None)  # type: ignore[arg-type]


class Queue:
    """A bounded queue that is emptied while a producer waits: `drained` messages a wait."""

    def __init__(self, bound: int, drained: int = 0) -> None:
        self.bound, self.drained, self.held = bound, drained, list[str]()
        self.taken, self.asked, self.waits = list[str](), list[int](), list[float]()
        self.line = list[str]()

    def publish(
        self, store: Store, messages: Sequence[Outgoing], *, policy: str, caller: Caller = NOBODY
    ) -> list[Answer]:
        self.asked.append(len(messages))
        answers = [self._take(message) for message in messages]
        self.line = [caller.ticket] if caller.stays and isinstance(answers[0], Full) else []
        return answers

    def wait(self, store: Store, queue: str, ticket: str, seconds: float) -> int:
        assert self.line == [ticket], "a waiting producer has a ticket"
        self.waits.append(seconds)
        del self.held[: self.drained]
        return min(int(ticket.split(".")[0]), self.bound - len(self.held))

    def leave(self, store: Store, queue: str, ticket: str) -> None:
        self.line = []

    def _take(self, message: Outgoing) -> Answer:
        if len(self.held) >= self.bound:
            return Full(message.id, message.queue, self.bound, len(self.held))
        self.held.append(message.id)
        self.taken.append(message.id)
        return Accepted(message.id)


def messages(count: int) -> list[Outgoing]:
    return [Outgoing("q", str(n), "{}") for n in range(count)]


def offered(
    queue: Queue, count: int, monkeypatch: pytest.MonkeyPatch, timeout_seconds: float | None = None
) -> list[Answer]:
    monkeypatch.setattr(backpressure, "publish", queue.publish)
    monkeypatch.setattr(backpressure, "leave_line", queue.leave)
    monkeypatch.setattr(backpressure, "wait_for_room", queue.wait)
    line, flow = AdmissionLine(STORE, lambda: 0), FlowControl()
    return list(send_blocking(messages(count), line=line, timeout_seconds=timeout_seconds, flow=flow))


def test_block_waits_until_everything_is_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `block` every message is taken, once, in the order given, though the queue holds few."""
    queue = Queue(bound=10, drained=3)
    assert offered(queue, 100, monkeypatch) == [Accepted(str(n)) for n in range(100)]
    assert queue.taken == [str(n) for n in range(100)]


def test_a_waiting_producer_asks_with_one_message_and_sends_what_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full queue is asked with one message, and sent as many as it called for; nothing is sent in vain."""
    queue = Queue(bound=10, drained=4)
    offered(queue, 30, monkeypatch)
    assert queue.asked == [30, *[1, 4] * 5]
    assert len(queue.waits) == 5


def test_a_producer_without_a_grant_asks_again_and_keeps_its_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that ends without a call is followed by one question under the same ticket, not by a rush."""
    queue = Queue(bound=1)
    rooms = iter([0, 0, 1])

    def wait(store: Store, name: str, ticket: str, seconds: float) -> int:
        room = next(rooms)
        queue.waits.append(seconds)
        del queue.held[:room]
        return room

    monkeypatch.setattr(queue, "wait", wait)
    offered(queue, 2, monkeypatch)
    assert queue.asked == [2, 1, 1, 1, 1]
    assert all(15 <= seconds <= 30 for seconds in queue.waits)


def test_block_gives_up_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `timeout_seconds` without room the rest is refused, accepted messages stay accepted, and the
    place in the line is given up.
    """
    queue = Queue(bound=2)
    outcomes = offered(queue, 4, monkeypatch, timeout_seconds=0.02)
    assert outcomes[:2] == [Accepted("0"), Accepted("1")]
    assert all(isinstance(outcome, Full) for outcome in outcomes[2:])
    assert all(seconds <= 0.02 for seconds in queue.waits)
    assert queue.line == []


def test_no_time_means_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """`block` without time never waits."""
    queue = Queue(bound=1)
    outcomes = offered(queue, 2, monkeypatch, timeout_seconds=0.0)
    assert [type(outcome) for outcome in outcomes] == [Accepted, Full]
    assert queue.waits == []


def test_an_interrupted_wait_leaves_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while waiting gives the place up: nobody behind it waits for a producer that has gone."""
    queue = Queue(bound=1)

    def interrupted(*_: Any) -> int:
        assert queue.line
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        offered(queue, 2, monkeypatch)
    assert queue.line == []
