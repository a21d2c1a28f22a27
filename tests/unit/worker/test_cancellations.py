"""The cancellations that running handlers ask for: how often they are read, and for which tasks."""

from collections.abc import Collection

from millpond.broker.errors import BrokerAway
from millpond.worker.handler_services import FRESH_SECONDS, KEEP_READING_SECONDS, Cancellations


class _Server:
    """A broker with cancelled names, which records the names of each reading."""

    def __init__(self) -> None:
        self.cancelled: set[str] = set()
        self.readings: list[set[str]] = []
        self.is_away = False

    def read(self, names: Collection[str]) -> frozenset[str]:
        self.readings.append(set(names))
        if self.is_away:
            raise BrokerAway("away")
        return frozenset(self.cancelled.intersection(names))


def test_the_names_of_running_tasks_are_read_together_at_a_bounded_rate() -> None:
    """One reading a moment has the names of all running tasks. Names of ended tasks are left out."""
    server, now = _Server(), [0.0]
    known = Cancellations(server.read, lambda: now[0])
    assert not known.includes_any("a", "batch")
    assert not known.includes_any("b", "batch")
    server.cancelled = {"a", "never asked for"}
    assert not known.includes_any("a", "batch"), "the last reading is still fresh"
    now[0] += FRESH_SECONDS
    assert known.includes_any("a", "batch")
    assert not known.includes_any("b", "batch")
    assert server.readings == [{"a", "batch"}, {"a", "b", "batch"}, {"a", "b", "batch"}]
    now[0] += KEEP_READING_SECONDS
    assert not known.includes_any("b", "batch")
    assert server.readings[-1] == {"b", "batch"}


def test_the_last_reading_holds_while_the_broker_is_unreachable() -> None:
    """A cancelled task stays cancelled, and no handler fails because the broker does not reply."""
    server, now = _Server(), [0.0]
    server.cancelled = {"a"}
    known = Cancellations(server.read, lambda: now[0])
    assert known.includes_any("a")
    server.is_away = True
    now[0] += 2 * FRESH_SECONDS
    assert known.includes_any("a")
    assert not known.includes_any("b")
