"""The types of settings, each with its parser and a description of its valid values."""

import json
import tomllib
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, SecretStr

from millpond.tasks import durations
from millpond.tasks.errors import BadQuantity


class SettingsTable(BaseModel):
    """Base of the models of settings: immutable, and without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class ValidValues:
    """A description of the valid values of a setting, to follow "write" in a sentence."""

    words: str


def refuse_bool(value: Any) -> Any:
    """Return the value. Raises `BadQuantity` for true and false, which pydantic would read as 1 and 0."""
    if isinstance(value, bool):
        raise BadQuantity(f"{value!r} is not a number")
    return value


def parse_entries(value: Any) -> Any:
    """Return the entries of a list that is a text (`a,b`, JSON, TOML). Return any other value unchanged."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [entry.strip() for entry in value.split(",") if entry.strip()]
    return parse_json_or_toml(value)


def parse_json_or_toml(text: str) -> Any:
    """Return the value of a text that is JSON, or else a value of TOML. Raises `ValueError`."""
    try:
        return json.loads(text)
    except ValueError:
        return tomllib.loads(f"value = {text}")["value"]  # its error is a ValueError as well


Count = Annotated[
    int, BeforeValidator(refuse_bool), Field(gt=0, le=10**15), ValidValues("a whole number from 1 on")
]
CountOrZero = Annotated[
    int, BeforeValidator(refuse_bool), Field(ge=0, le=10**15), ValidValues("a whole number from 0 on")
]
Port = Annotated[
    int,
    BeforeValidator(refuse_bool),
    Field(ge=0, le=65535),
    ValidValues("the number of a port, from 0 to 65535"),
]

#: A list of texts, which a variable separates by commas.
Words = Annotated[
    tuple[str, ...],
    BeforeValidator(parse_entries),
    ValidValues('a list, as in ["a", "b"]; in a variable a,b'),
]
Logins = Annotated[
    tuple[SecretStr, ...],
    BeforeValidator(parse_entries),
    ValidValues('a list of logins, as in ["user:password"]; in a variable user:password'),
]

Url = Annotated[str, ValidValues("a URL, as in redis://host:6379/0")]

#: A host name, an IPv4 address or an IPv6 address without brackets.
Host = Annotated[
    str,
    Field(pattern=r"^([^\s/:@,;\[\]]+|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%\w+)?)$"),
    ValidValues("the name or the address of a host, without a port"),
]

#: A name that is used in keys of Redis, metrics and log lines.
Name = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$"), ValidValues("a name of 1 to 60 letters, digits, . _ -")
]

#: A duration in seconds, above 0.
Seconds = Annotated[
    float, BeforeValidator(durations.parse_seconds), Field(gt=0), ValidValues(durations.DURATION)
]

#: Tasks per second, above 0.
Rate = Annotated[float, BeforeValidator(durations.parse_rate), ValidValues(durations.RATE)]

#: A number of messages, or a text of seconds: `30s`.
Bound = Annotated[int | str, BeforeValidator(durations.parse_bound), ValidValues(durations.BOUND)]


#: The time between two periods of a schedule. It is written with units: `1h30m`.
Period = Annotated[
    timedelta,
    BeforeValidator(lambda value: timedelta(seconds=durations.parse_seconds(value))),
    PlainSerializer(lambda period: durations.format_seconds(period.total_seconds())),
    ValidValues("a duration of 1s or more, as in 15m, 1h or 1d"),
]
