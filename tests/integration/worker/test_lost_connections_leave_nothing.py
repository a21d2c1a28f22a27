"""The remains of a lost connection in a worker process, which may lose thousands in its life."""

import gc
import weakref
from typing import Any

from kombu import Connection
from kombu.asynchronous import Hub

from millpond.broker.transport import Transport


def test_neither_a_channel_nor_a_call_in_each_turn_of_the_loop(url: str) -> None:
    """The channels of lost connections are freed, and the event loop calls only the living one."""
    hub, channels = Hub(), list[weakref.ref[Any]]()
    for _ in range(5):
        connection = Connection(url, transport=Transport)
        channel = connection.default_channel
        channel.basic_qos(0, 4)
        connection.transport.register_with_event_loop(connection.connection, hub)
        channels.append(weakref.ref(channel))
        del channel
        if len(channels) < 5:
            connection.collect()
    gc.collect()
    assert [each() is not None for each in channels] == [False, False, False, False, True]
    assert len(hub.on_tick) == 1
    connection.release()
    hub.close()
