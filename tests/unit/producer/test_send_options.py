"""The options of a send: client, batch, message, gateway and schedules have the same ones."""

import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

from millpond import Batch, Client, Square
from millpond.producer.gateway.options import SendOptions as GatewayOptions
from millpond.producer.message import Message
from millpond.tasks.schedule import ScheduleSettings
from millpond.tasks.send_options import SendOptions, option_descriptions
from tests.harness.run_to_end import run_to_end

OPTIONS = [each.name for each in fields(SendOptions)]
HOW = ["overflow", "timeout"]

#: Options that the gateway names otherwise: a duration is a number of seconds there.
WIRE = {name: f"{name.rstrip('_')}_seconds" for name in ("delay", "expires", "deadline", "for_")}

#: Options that a schedule may set; the scheduler sets the id and the unique key.
SCHEDULED = ["queue", "priority", "expires"]

USER = """
from millpond import Client, Square

with Client() as client, client.batch() as batch:
    client.send(Square(n=1), once="one", for_="1h", overflow="block", batch=batch)
    batch.send(("squares.square", {"n": 1}), delay=3)
    client.send(Square(n=1), once=3)
    client.send(Square(n=1), onze="one")
    batch.send(Square(n=1), batch=batch)
"""


def test_client_batch_and_message_have_every_option() -> None:
    """Each has the options of the dataclass, in its order; the client and a batch have how it is sent too."""
    assert list(signature(Message).parameters) == ["contract", *OPTIONS]
    assert list(signature(Batch.send).parameters) == ["self", "contract", *OPTIONS, *HOW]
    assert list(signature(Client.send).parameters) == ["self", "contract", *OPTIONS, *HOW, "batch"]


def test_the_gateway_has_every_option_with_the_same_words() -> None:
    """The trace comes in a header there; what is described in Python is described so in the schema."""
    known = {
        WIRE.get(name, name): text for name, text in option_descriptions().items() if name != "traceparent"
    }
    assert {name: each.description for name, each in GatewayOptions.model_fields.items()} == known


def test_a_schedule_has_its_options_with_the_same_words() -> None:
    """What a schedule may set is what it is sent with."""
    assert {name: ScheduleSettings.model_fields[name].description for name in SCHEDULED} == {
        name: option_descriptions()[name] for name in SCHEDULED
    }
    given = {"queue": "slow", "priority": 4, "expires": "1h"}
    every = ScheduleSettings.model_validate({"kind": "squares.square", "every": "1d", **given})
    assert list(every.options.non_default()) == SCHEDULED
    assert Message(Square(n=1), **every.options.non_default()).priority == 4


@pytest.mark.slow
def test_a_type_checker_knows_each_option(tmp_path: Path) -> None:
    """Code of a user is checked: a wrong type, a wrong name, and a batch for a batch are errors."""
    (tmp_path / "user.py").write_text(USER)
    words = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "user.py"]
    ended = run_to_end(words, cwd=tmp_path, timeout=300)
    errors = [line for line in ended.stdout.splitlines() if "error:" in line]
    assert [line.split(":")[1] for line in errors] == ["7", "8", "9"], ended.stdout
    assert '"once" to "send" of "Client"' in errors[0]
    assert 'Unexpected keyword argument "onze" for "send" of "Client"' in errors[1]
