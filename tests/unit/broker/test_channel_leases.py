"""The leases of a channel whose broker is away as the channel or its process ends."""

from millpond.broker.connection import connect
from millpond.broker.consume.channel_leases import ChannelLeases
from millpond.broker.consume.in_flight import InFlightMessages

#: Nothing listens on this port.
NOWHERE = "redis://127.0.0.1:1/0"


def test_a_broker_that_is_away_keeps_no_process_from_its_end() -> None:
    """An error would end the loop over all open channels, so the others would release nothing."""
    leases = ChannelLeases(InFlightMessages(), lease_ms=30_000, store=connect(NOWHERE), started_tags=set)
    leases.end_with_process()


def test_a_channel_without_messages_can_be_closed_while_the_broker_is_away() -> None:
    leases = ChannelLeases(InFlightMessages(), lease_ms=30_000, store=connect(NOWHERE), started_tags=set)
    leases.close()
