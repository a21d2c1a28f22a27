"""What middleware is told about sends to a real server: each task once, with how its sending ended."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from millpond import Middleware, Sending
from millpond.broker import limits
from millpond.broker.connection import connect
from millpond.producer import sender as sender_module
from millpond.producer.client import Client
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Refused
from millpond.tasks.contract import Contract
from millpond.tasks.errors import BadContract, BrokerAway
from millpond.tasks.middleware import Hooks
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square


class Long(Contract, kind="test.longer"):
    """A task with an argument that is too long for a message."""

    text: str


@pytest.fixture
def client(each_url: str, prefix: str) -> Iterator[Client]:
    with Client(settings=Settings(broker_url=each_url, key_prefix=prefix)) as opened:
        yield opened


class Notes(Middleware):
    """A middleware that notes how each send ended."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, str]] = []
        self.texts: list[str] = []

    def on_sent(self, sending: Sending, error: Exception | None) -> None:
        """Note the id, the queue and the error."""
        self.noted.append((sending.id, sending.queue, type(error).__name__))
        self.texts.append(str(error))


def test_middleware_hears_how_each_sending_ended(client: Client) -> None:
    """A middleware gets every send once: accepted, refused, or without an answer."""
    notes = Notes()
    sender = replace(client._sender, hooks=(Hooks([notes]), Hooks([notes])))
    options: dict[str, Any] = {"overflow": "reject", "timeout_seconds": None, "batch": None}
    sender.send_one(Message(Square(n=1), id="one"), **options)
    limits.change_limits(client.store, "default", bound=1, overflow="block")
    refused = list(sender.stream([Message(Square(n=2), id="two")], **options))
    assert [type(each) for each in refused] == [Refused]
    with pytest.raises(BadContract):
        sender.send_one(Message(Long(text="x" * 8_000_000), id="three", queue="default"), **options)
    away = replace(sender, store=connect("redis://127.0.0.1:1", timeout_seconds=0.1))
    with pytest.raises(BrokerAway):
        list(away.stream([Message(Square(n=4), id="four")], **options))
    assert notes.noted == [
        ("one", "default", "NoneType"),
        ("two", "default", "QueueFull"),
        ("three", "default", "BadContract"),
        ("four", "default", "BrokerAway"),
    ]
    assert not sender.unanswered


def test_middleware_does_not_hear_of_messages_whose_sending_did_not_begin(client: Client) -> None:
    """A Ctrl-C while the next input is read: what was composed and not sent is not told as sent."""

    def interrupted() -> Iterator[Message]:
        yield from (Message(Square(n=n), id=str(n)) for n in range(3))
        raise KeyboardInterrupt

    notes = Notes()
    sender = replace(client._sender, hooks=(Hooks([notes]), Hooks([notes])))
    with pytest.raises(KeyboardInterrupt):
        list(sender.stream(interrupted(), overflow="reject", timeout_seconds=None, batch=None))
    assert [id for id, _, _ in notes.noted] == ["0"]
    assert not sender.unanswered


def test_middleware_hears_of_the_messages_before_an_invalid_one(client: Client) -> None:
    """An invalid item ends a stream: the messages that waited to be sent with it are refused, too."""
    notes = Notes()
    sender = replace(client._sender, hooks=(Hooks([notes]), Hooks([notes])))
    items = [Message(Square(n=n), id=str(n)) for n in range(3)]
    invalid = Message(("squares.square", {"n": "one"}))
    with pytest.raises(BadContract):
        list(sender.stream([*items, invalid], overflow="reject", timeout_seconds=None, batch=None))
    assert sorted(notes.noted) == [
        ("0", "default", "NoneType"),
        ("1", "default", "BadContract"),
        ("2", "default", "BadContract"),
    ]
    assert not sender.unanswered


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("sends_one", [True, False])
def test_an_interrupted_sending_is_not_told_as_sent(
    client: Client, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException], sends_one: bool
) -> None:
    """A Ctrl-C while the broker is waited for: middleware gets an error, as the task may not be accepted."""

    def interrupted(*_arguments: Any, **_options: Any) -> Any:
        raise interrupt

    notes = Notes()
    sender = replace(client._sender, hooks=(Hooks([notes]), Hooks([notes])))
    options: dict[str, Any] = {"overflow": "reject", "timeout_seconds": None, "batch": None}
    monkeypatch.setattr(sender_module, "publish", interrupted)
    message = Message(Square(n=1), id="one")
    with pytest.raises(interrupt):
        sender.send_one(message, **options) if sends_one else list(sender.stream([message], **options))
    assert notes.noted == [("one", "default", "SendInterrupted")]
    assert f"interrupted ({interrupt.__name__}): the task may have been accepted" in notes.texts[0]
    assert not sender.unanswered


def test_a_stream_that_is_left_does_not_tell_unsent_tasks_as_sent(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that leaves a stream under `block` leaves tasks of its chunk that were never sent."""
    limits.change_limits(client.store, "default", bound=3, overflow="block")
    monkeypatch.setattr(sender_module, "CHUNK_SECONDS", 60)
    notes = Notes()
    sender = replace(client._sender, hooks=(Hooks([notes]), Hooks([notes])))
    messages = (Message(Square(n=n), id=str(n)) for n in range(5))
    stream = sender.stream(messages, overflow="block", timeout_seconds=5, batch=None)
    assert [next(stream).id for _ in range(3)] == ["0", "1", "2"]
    stream.close()
    assert notes.noted == [
        *((id, "default", "NoneType") for id in "012"),
        *((id, "default", "SendInterrupted") for id in "34"),
    ]
    assert not sender.unanswered
