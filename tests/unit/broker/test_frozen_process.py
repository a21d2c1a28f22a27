"""A process frozen past its lease, in thought: the tasks that it may start."""

import pytest

from millpond.broker.connection import Store
from millpond.broker.consume import in_flight as registry
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.lease_renewer import LeaseRenewer
from millpond.broker.keys import QueueKeys
from tests.harness.manual_consumer import delivery_of

LEASE_MS = 3_000


class Renewing:
    """A client that renews every lease."""

    def execute_command(self, *_: object) -> int:
        """Renew."""
        return 1


def test_a_process_that_was_frozen_starts_nothing_before_it_has_heard_of_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A message fetched before a pause longer than the lease is not started right after it."""
    in_flight = InFlightMessages()
    lease = in_flight.lease_on(QueueKeys("cold"))
    lease.registered = True
    delivery = delivery_of("1/0", "one")
    lease.add_delivery(delivery)
    keeper = LeaseRenewer(in_flight, lease_ms=LEASE_MS, store=Store(Renewing()))
    keeper._renew_lease(lease)
    assert in_flight.may_start(delivery)
    later = registry.elapsed_seconds() + LEASE_MS / 1000
    with monkeypatch.context() as frozen:
        frozen.setattr(registry, "elapsed_seconds", lambda: later)
        assert not in_flight.may_start(delivery)
    keeper._renew_lease(lease)
    assert in_flight.may_start(delivery)
