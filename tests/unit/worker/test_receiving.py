"""What fails while one message is received is answered for by that message alone."""

from types import SimpleNamespace
from typing import Any

import pytest

from millpond.worker.celery.strategy import receiver
from tests.harness.by_hand import delivery_of


def received(error: Exception) -> list[Any]:
    """Receive a message whose kind raises an error; return what was dead-lettered."""

    def start(_delivery: Any) -> None:
        raise error

    letters: list[Any] = []
    delivery = delivery_of("1/0", "a")
    receive = receiver(
        {delivery.message.kind: SimpleNamespace(start=start)},
        otherwise=letters.append,
        dead_letter=lambda _delivery, *why: letters.append(why),
        broken=(ConnectionError,),
    )
    receive(delivery)
    return letters


def test_an_error_of_a_programs_own_code_ends_its_message_and_not_the_loop() -> None:
    """The message is a dead letter that names the error."""
    assert received(ValueError("of a callback")) == [("cannot be received", "ValueError: of a callback")]


def test_a_broken_connection_ends_the_loop() -> None:
    """It is no fault of the message."""
    with pytest.raises(ConnectionError):
        received(ConnectionError("gone"))
