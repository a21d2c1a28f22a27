"""The cancellations that a running task knows of."""

from collections.abc import Collection

from millpond.broker.errors import BrokerAway
from millpond.worker.handler_services import FRESH_SECONDS, KEEP_READING_SECONDS, Cancellations


class _Server:
    """The cancelled names, and each question that was asked."""

    def __init__(self) -> None:
        self.cancelled: set[str] = set()
        self.questions: list[set[str]] = []
        self.is_away = False

    def read(self, names: Collection[str]) -> frozenset[str]:
        self.questions.append(set(names))
        if self.is_away:
            raise BrokerAway("away")
        return frozenset(self.cancelled.intersection(names))


def test_only_what_runs_is_asked_for_together_and_not_more_often_than_it_may() -> None:
    """The names of all running tasks are one question a moment; those of ended tasks are dropped."""
    server, now = _Server(), [0.0]
    known = Cancellations(server.read, lambda: now[0])
    assert not known.includes_any("a", "batch")
    assert not known.includes_any("b", "batch")
    server.cancelled = {"a", "never asked for"}
    assert not known.includes_any("a", "batch"), "no older than a moment"
    now[0] += FRESH_SECONDS
    assert known.includes_any("a", "batch")
    assert not known.includes_any("b", "batch")
    assert server.questions == [{"a", "batch"}, {"a", "b", "batch"}, {"a", "b", "batch"}]
    now[0] += KEEP_READING_SECONDS
    assert not known.includes_any("b", "batch")
    assert server.questions[-1] == {"b", "batch"}


def test_what_was_known_stands_while_the_broker_is_away() -> None:
    """A cancelled task stays cancelled, and no body fails because the question has no answer."""
    server, now = _Server(), [0.0]
    server.cancelled = {"a"}
    known = Cancellations(server.read, lambda: now[0])
    assert known.includes_any("a")
    server.is_away = True
    now[0] += 2 * FRESH_SECONDS
    assert known.includes_any("a")
    assert not known.includes_any("b")
