"""Freeze a process past its lease, in thought, and ask it what it may start."""

import pytest

from millpond.broker.connection import Store
from millpond.broker.consume import in_flight
from millpond.broker.consume.in_flight import Holder
from millpond.broker.consume.lease_renewer import Keeper
from millpond.broker.keys import QueueKeys
from tests.harness.by_hand import delivery_of

LEASE_MS = 3_000


class Renewing:
    """Be a client that renews every lease."""

    def execute_command(self, *_: object) -> int:
        """Renew."""
        return 1


def test_a_process_that_was_frozen_starts_nothing_before_it_has_heard_of_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was fetched before a pause longer than the lease is not started right after it."""
    holder = Holder()
    hold = holder.hold(QueueKeys("cold"))
    hold.registered = True
    delivery = delivery_of("1/0", "one")
    hold.take(delivery)
    keeper = Keeper(holder, lease_ms=LEASE_MS, store=Store(Renewing()))
    keeper._renew(hold)
    assert not holder.is_lost(delivery)
    later = in_flight.elapsed_seconds() + LEASE_MS / 1000
    with monkeypatch.context() as frozen:
        frozen.setattr(in_flight, "elapsed_seconds", lambda: later)
        assert holder.is_lost(delivery)
    keeper._renew(hold)
    assert not holder.is_lost(delivery)
