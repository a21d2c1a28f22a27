"""One message for which middleware raises an error does not fail the messages that share its call."""

from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from millpond.broker.connection import Store
from millpond.broker.inspect import depth
from millpond.producer.client import Client
from millpond.producer.gateway.send_batcher import send_each
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Sent
from millpond.tasks.middleware import Hooks, Middleware, Sending
from millpond.tasks.squares.contract import Square


def test_an_error_of_middleware_fails_its_message_alone(
    client: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of messages that share a call, one for which middleware raises an error has it; others are sent."""

    class Picky(Middleware):
        def on_sending(self, sending: Sending) -> None:
            if cast(Square, sending.job).n == 3:
                raise KeyError("three")

    hooks = Hooks([Picky()])
    monkeypatch.setattr(client, "_sender", replace(client._sender, hooks=(hooks, hooks)))
    messages = [Message(Square(n=n)) for n in range(6)]
    results = list(send_each(client, messages, overflow="reject", timeout=timedelta(0), batch=None))
    assert [type(result) for result in results] == [Sent, Sent, Sent, KeyError, Sent, Sent]
    assert depth.read_depth(store, "default").ready == 5
