"""The checks of a message before it is sent, and its form on the wire."""

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from millpond.producer.client import Client
from millpond.producer.message import Message, compose_job, contract_from
from millpond.tasks.contract import Contract, contracts_by_kind, load_shipped_contracts
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.errors import BadContract, UnknownKind
from millpond.tasks.middleware import Sending
from millpond.tasks.squares.contract import Square

NOW = 1_800_000_000_000


class Loose(Contract, kind="test.message.loose"):
    """A contract of any value."""

    value: Any


def composed(message: Message) -> dict[str, Any]:
    sending = Sending(contract_from(message.contract), message.id or "1", "q")
    sent = compose_job(message, sending, now_ms=NOW)
    return {"message": sent, **json.loads(sent.payload)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delay": timedelta(1), "at": datetime.now(UTC)}, "not both"),
        ({"priority": 10}, "from 0"),
        ({"for_": timedelta(1)}, "give both"),
        ({"once": "x", "for_": timedelta(0)}, "at least a millisecond"),
        ({"once": ""}, "once must have 1 to"),
        ({"id": "x" * 201}, "id must have 1 to"),
        ({"id": "a\udcff"}, "half a surrogate pair is no text"),
        ({"once": "\ud800"}, "half a surrogate pair is no text"),
        ({"id": "a\nb"}, "has characters that cannot be shown"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], said: str) -> None:
    """Options that cannot be meant are refused where they are given."""
    with pytest.raises(ValueError, match=said):
        Message(Square(n=1), **options)


def test_a_time_without_a_zone_is_refused() -> None:
    """A naive time would mean another moment on another host, so it is refused."""
    with pytest.raises(ValueError, match="no time zone"):
        composed(Message(Square(n=1), at=datetime(2030, 1, 1)))


@pytest.mark.parametrize("name", ["delay", "expires", "deadline", "for_"])
@pytest.mark.parametrize("written", [90, 90.0, "90", "90s", "1.5m", "1m30s", timedelta(seconds=90)])
def test_a_duration_is_written_as_everywhere(name: str, written: Any) -> None:
    """A number of seconds, a text as in millpond.toml and a timedelta mean the same."""
    more = {"once": "x"} if name == "for_" else {}
    assert getattr(Message(Square(n=1), **{name: written}, **more), name) == timedelta(seconds=90)


@pytest.mark.parametrize("name", ["delay", "expires", "deadline", "for_"])
@pytest.mark.parametrize("written", ["soon", -1, "90 years ago", float("nan"), True, []])
def test_what_is_no_duration_is_refused_with_its_name(name: str, written: Any) -> None:
    """The error names the argument and says how a duration is written."""
    more = {"once": "x"} if name == "for_" else {}
    with pytest.raises(ValueError, match=rf"^{name}: .* is no duration: write a duration, as in 500ms"):
        Message(Square(n=1), **{name: written}, **more)


@pytest.mark.parametrize("written", ["tomorrow", "2030-01-01T12:00:00Z", 90])
def test_a_moment_that_is_none_is_refused_with_its_form(written: Any) -> None:
    """`at` takes a moment; the error names it, and `delay` for a duration."""
    with pytest.raises(ValueError, match=rf"^at: {written!r} is no moment: give a datetime with a time zone"):
        Message(Square(n=1), at=written)


def test_a_wrong_keyword_is_named_with_the_method_that_was_called() -> None:
    """The name of an internal class means nothing to the caller; an error of a value stays as it is."""
    with Client("redis://127.0.0.1:1/0") as client:
        with pytest.raises(TypeError, match=r"^Client\.send\(\) got an unexpected keyword argument 'quue'"):
            client.send(Square(n=1), quue="x")  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"^Client\.send\(\) missing 1 required positional argument"):
            client.send()  # type: ignore[call-arg]
        with pytest.raises(
            TypeError, match=r"^Client\.send\(\) takes 2 positional arguments but 3 were given"
        ):
            client.send(Square(n=1), "x")  # type: ignore[misc]


@pytest.mark.parametrize("name", ["delay", "expires", "deadline"])
def test_a_time_that_no_date_can_tell_is_refused(name: str) -> None:
    """The error says which time it was."""
    with pytest.raises(ValueError, match="from now is before 1970 or after the year 9999"):
        composed(Message(Square(n=1), **{name: timedelta.max}))


@pytest.mark.parametrize("name", ["at", "expires", "deadline"])
@pytest.mark.parametrize("year", [1960, 9999])
def test_a_time_that_no_message_can_hold_is_refused(name: str, year: int) -> None:
    """A time before 1970, or after the year 9999 by UTC, is a mistake, and the error names it."""
    when = datetime(year, 12, 31, 23, tzinfo=timezone(-timedelta(hours=12)))
    with pytest.raises(ValueError, match=f"{year}-12-31 .* is before 1970 or after the year 9999"):
        composed(Message(Square(n=1), **{name: when}))


def test_what_a_call_cannot_use_is_named_before_anything_is_sent() -> None:
    """A policy, a timeout and an item that are none are refused; the broker is not even asked."""
    with Client("redis://127.0.0.1:1/0") as client:
        with pytest.raises(ValueError, match="block, reject, shed, caller_runs, not 'drop'"):
            client.send(Square(n=1), overflow="drop")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout: 'soon' is no duration"):
            client.send(Square(n=1), timeout="soon")
        with pytest.raises(TypeError, match="5 cannot be sent: give a contract, the name of a kind"):
            client.send_many([5])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="is one item: put it into a list, or call send"):
            client.send_many(Square(n=1))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="once is a text, not 42"):
            client.send(Square(n=1), once=42)  # type: ignore[arg-type]


def test_a_contract_without_a_kind_is_refused() -> None:
    """No worker could run it."""

    class Nameless(Contract):
        n: int

    with pytest.raises(
        UnknownKind, match=r"Nameless has no kind: declare it as class .*Nameless\(Contract, ki"
    ):
        contract_from(Nameless(n=1))


@pytest.mark.parametrize("value", [object(), len, b"\xff"], ids=["object", "function", "bytes"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    """A field of any type is checked as it is written down: the error names the kind, and the remedy."""
    with pytest.raises(
        BadContract, match=r"test\.message\.loose cannot be written as JSON: .*bytes as base64"
    ):
        composed(Message(Loose(value=value)))


def test_due_and_expiry_are_by_the_servers_clock() -> None:
    """`delay` and `expires` count from the server's time, wherever the producer's clock is."""
    sent = composed(Message(Square(n=1), delay=timedelta(seconds=5), expires=timedelta(seconds=9)))
    assert sent["message"].due_ms == NOW + 5_000
    assert datetime.fromisoformat(sent["headers"]["expires"]).timestamp() * 1000 == NOW + 9_000


def test_a_kind_and_its_fields_stand_for_their_contract() -> None:
    """A kind's name with fields is checked as the contract is."""
    assert contract_from(("squares.square", {"n": 3})) == Square(n=3)
    with pytest.raises(BadContract, match="n: "):
        contract_from(("squares.square", {"n": "three"}))
    with pytest.raises(UnknownKind, match=r"squares\.square"):
        contract_from(("squares.cube", {}))


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"priority": "5"}, TypeError, "priority is a whole number from 0 to 9, not '5'"),
        ({"priority": 1.0}, TypeError, "priority is a whole number from 0 to 9, not 1.0"),
        ({"queue": 5}, TypeError, "queue is a text, not 5"),
        ({"queue": ""}, ValueError, "queue must have 1 to 200 characters, this has 0"),
    ],
)
def test_an_option_of_another_type_is_told_by_its_name(
    options: dict[str, Any], error: type[Exception], reason: str
) -> None:
    """The error is about the argument, and not about what was done with it."""
    with pytest.raises(error, match=f"^{reason}"):
        Message(Square(n=1), **options)


def test_a_fault_of_the_whole_contract_has_no_field() -> None:
    """The reason of a validator of the model follows at once: no field is at fault alone."""
    with pytest.raises(BadContract, match=r"contract: the fields must be a table of names and values$"):
        contract_from(("squares.square", [1]))  # type: ignore[arg-type]
    with pytest.raises(
        BadContract, match=r"^email\.send does not fit its contract: give the body in one form"
    ):
        contract_from(("email.send", {"sender": "a@example.org", "to": "b@example.org"}))


def test_secrets_travel_but_are_not_shown() -> None:
    """A field declared secret is in the body of the message, and Flower does not show it."""
    mail = SendEmail(sender="a@example.org", to=("b@example.org",), subject="s", text="the secret")
    sent = composed(Message(mail))
    assert "the secret" in b64decode(sent["body"]).decode()
    assert "the secret" not in sent["headers"]["kwargsrepr"]


def test_fields_with_their_default_stay_at_home() -> None:
    """Fields left at their default are not sent, so an older worker takes messages of a newer producer."""
    body = json.loads(b64decode(composed(Message(Square(n=1)))["body"]))
    assert body[1] == {"n": 1}


def test_every_kind_that_ships_has_a_valid_example() -> None:
    """The example that `millpond kinds` shows of each shipped kind can be sent as it stands."""
    from millpond.producer.examples import example_fields

    load_shipped_contracts()
    shipped = {
        name: contract
        for name, contract in contracts_by_kind().items()
        if contract.__module__.startswith("millpond.tasks.")
    }
    assert shipped
    for name, contract in shipped.items():
        assert contract_from((name, example_fields(contract)))
