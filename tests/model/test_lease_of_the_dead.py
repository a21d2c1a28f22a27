"""The messages of a dead consumer, where the living ones turn seldom; the clock is moved."""

from moved_clock import CLOCK

from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.queue_lease import FetchRequest, QueueLease
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import SUCCEEDED
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.broker.scripts import script
from tests.harness.manual_consumer import delivery_of

LEASE_MS = 15_000


def turn(store: Store, lease: QueueLease, credit: int) -> list[str]:
    """Settle all messages in flight and fetch; return the messages."""
    for delivery in list(lease.in_flight.values()):
        lease.queue_outcome(delivery, SUCCEEDED)
    call = FetchRequest(lease, credit, credit, lease.take_outcomes())
    words = fetch_call.fetch_command(call, lease_ms=LEASE_MS)
    reply = fetch_call.parse_reply(
        script("settle_and_fetch").run(store.client, words[3 : 3 + words[2]], words[3 + words[2] :])
    )
    fetch_call.update_lease(call, reply)
    for fetched in reply.messages:
        lease.add_delivery(delivery_of(fetched.token))
    return [fetched.payload.decode() for fetched in reply.messages]


def test_a_pool_of_long_tasks_takes_back_what_a_dead_worker_held(store: Store, clock: None) -> None:
    """A pool of one slot with tasks of six seconds takes back a dead worker's message, though more wait."""
    keys, now = QueueKeys("mill", store.prefix), store.client.time()[0] * 1000
    dead, living = QueueLease(keys, "dead"), QueueLease(keys, "living")
    store.client.set(CLOCK, now)
    publish(store, [compose("any", {"n": n}, queue="mill", sent_at_ms=now) for n in range(20)])
    [held] = turn(store, dead, 1)
    found_after = None
    for seconds in range(6, 60, 6):
        store.client.set(CLOCK, now + seconds * 1000)
        if held in turn(store, living, 1):
            found_after = seconds
            break
        script("renew_lease").run(store.client, keys.for_scripts, ("living", LEASE_MS))
    assert found_after is not None, "as long as others wait, it never comes back"
    assert found_after <= 15 + 5 + 6 + 1
