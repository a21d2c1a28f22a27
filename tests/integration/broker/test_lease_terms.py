"""The term of a lease is that of its queue."""

from millpond.broker import server
from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.lease_renewer import LeaseRenewer
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.keys import QueueKeys
from millpond.tasks.app import transport_options
from tests.harness.one_worker import settings_for

TERMS_SECONDS = {"email": 3.0, "files": 90.0}


def test_each_queue_has_a_lease_of_its_own_term(store: Store) -> None:
    """A queue of long leases beside one of short ones keeps its own, from a fetch on and at each renewal."""
    table = {"queues": {name: {"lease_seconds": seconds} for name, seconds in TERMS_SECONDS.items()}}
    options = transport_options(settings_for("redis://unused", table=table))
    in_flight = InFlightMessages()
    in_flight.lease_terms_ms = options["lease_terms_ms"]
    default_ms = int(1000 * options["lease_seconds"])
    renewer = LeaseRenewer(in_flight, lease_ms=default_ms, store=store)
    for queue, seconds in TERMS_SECONDS.items():
        lease = in_flight.lease_on(QueueKeys(queue, store.prefix))
        for call in (
            lambda: fetch_call.call_and_wait(store, FetchRequest(lease, 1, 1, []), lease_ms=default_ms),  # noqa: B023
            lambda: renewer._renew_lease(lease),  # noqa: B023
        ):
            call()
            until = store.client.zscore(lease.keys.consumers, lease.consumer)
            assert 0 <= until - server.server_time_ms(store) - 1000 * seconds + 2000 <= 2000, queue
