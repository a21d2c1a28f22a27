"""The secrets of a task are found by its contract, and removed from texts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Annotated, Any, Generic, NewType, TypeVar

import pydantic
import pytest
from pydantic import AliasChoices, BaseModel, Field, RootModel, create_model
from typing_extensions import TypeAliasType, TypedDict

from millpond.tasks.contract import Contract
from millpond.tasks.redaction import hides_fields, redact, redact_args, replace_secrets, secrets_in

_numbers = count()


class Letter(Contract, kind="test.redaction.letter"):
    to: list[str] = []
    words: dict[str, str] | None = Field(default=None, repr=False)


def cut(text: str, **kwargs: object) -> str:
    return replace_secrets(text, secrets_in(Letter, (), kwargs))


def test_what_a_hidden_field_holds_is_cut_out() -> None:
    """The value of a hidden field is removed from a text."""
    assert cut("no 's3cret!' here", words={"key": "s3cret!"}) == "no '[redacted]' here"


def test_what_an_open_field_says_too_is_no_secret() -> None:
    """A value that an open field has, too, is no secret: operators must read which address was refused."""
    error = "refused: Ann <ann@example.org>: unknown"
    words = {"address": "ann@example.org", "code": "9-18-27"}
    assert cut(error, to=["Ann <ann@example.org>"], words=words) == error
    assert cut("code 9-18-27", to=["ann@example.org"], words=words) == "code [redacted]"


def test_a_name_that_the_contract_does_not_have_opens_nothing() -> None:
    """The value of an unknown field is a secret: the name may be that of a hidden field, misspelt."""
    assert cut("s3cret!", wrods={"key": "s3cret!"}, words={"key": "s3cret!"}) == "[redacted]"


class Login(BaseModel):
    user: str
    password: str = Field(repr=False, validation_alias=AliasChoices("password", "pass"))


class Site(BaseModel):
    name: str
    login: Login | None = None
    mirrors: "list[Site]" = []


class Fetch(Contract, kind="test.redaction.nested"):
    url: str
    site: Site
    sites: dict[str, list[Site]] = {}
    either: Login | str = ""


@dataclass
class Key:
    name: str
    value: str = field(repr=False)


@pydantic.dataclasses.dataclass
class Door:
    key: Key
    code: str = Field(default="", repr=False)


class Card(TypedDict):
    number: Annotated[str, Field(repr=False)]
    doors: list[Door]


class Enter(Contract, kind="test.redaction.dataclasses"):
    key: Key | None = None
    doors: list[Door] = []
    by_name: dict[str, Card] = {}


KEY = {"name": "front", "value": "s3cret!"}
DATACLASSES: list[dict[str, Any]] = [
    {"key": KEY},
    {"doors": [{"key": {"name": "front", "value": ""}}, {"key": KEY}]},
    {"doors": [{"key": {"name": "front", "value": ""}, "code": "s3cret!"}]},
    {"by_name": {"a": {"number": "s3cret!", "doors": []}}},
    {"by_name": {"a": {"number": "1", "doors": [{"key": KEY}]}}},
    {"key": {"name": "front", "vaule": "s3cret!"}},
]


@pytest.mark.parametrize("fields", DATACLASSES)
def test_hidden_fields_of_dataclasses_are_hidden(fields: dict[str, Any]) -> None:
    """Hidden fields of dataclasses and typed dictionaries are hidden at any depth, as those of models are."""
    assert hides_fields(Enter)
    shown = redact(Enter, fields)
    assert "s3cret!" not in str(shown)
    assert replace_secrets("with s3cret! in it", secrets_in(Enter, (), fields)) == "with [redacted] in it"
    if "front" in str(fields) and "vaule" not in str(fields):
        assert "front" in str(shown)


LOGIN = {"user": "ann", "password": "s3cret!"}
NESTED: list[dict[str, Any]] = [
    {"site": {"name": "a", "login": LOGIN}},
    {"site": {"name": "a", "login": {"user": "ann", "pass": "s3cret!"}}},
    {"site": {"name": "a", "mirrors": [{"name": "b", "mirrors": [{"name": "c", "login": LOGIN}]}]}},
    {"site": {"name": "a"}, "sites": {"x": [{"name": "b", "login": LOGIN}]}},
    {"site": {"name": "a"}, "either": LOGIN},
    {"site": {"name": "a", "login": {"user": "ann", "passwrod": "s3cret!"}}},
    {"site": {"name": "a", "login": "s3cret!"}},
    {"site": "s3cret!"},
]


@pytest.mark.parametrize("fields", NESTED, ids=range(len(NESTED)))
def test_hidden_fields_of_nested_models_are_hidden(fields: dict[str, Any]) -> None:
    """Hidden fields are hidden at any depth, in lists, tables and unions, under an alias or misspelt."""
    kwargs = {"url": "http://x", **fields}
    shown = redact(Fetch, kwargs)
    assert hides_fields(Fetch)
    assert "s3cret!" not in json.dumps(shown) + redact_args(Fetch, [kwargs])
    assert shown["url"] == "http://x"
    assert replace_secrets("cannot log in with s3cret! at http://x", secrets_in(Fetch, (), kwargs)) == (
        "cannot log in with [redacted] at http://x"
    )


def test_open_fields_of_nested_models_are_shown() -> None:
    """A nested model that hides one field hides no other."""
    fields = {"name": "a", "login": LOGIN, "mirrors": [{"name": "b"}]}
    shown = redact(Fetch, {"url": "u", "site": fields, "sites": {"x": [{"name": "b"}]}})
    assert shown["sites"] == {"x": [{"name": "b"}]}
    login = {"user": "ann", "password": "[redacted, 7 long]"}
    assert shown["site"] == {"name": "a", "login": login, "mirrors": [{"name": "b"}]}


Bound = TypeVar("Bound", bound=Login)
Renamed = NewType("Renamed", Login)
Logins = TypeAliasType("Logins", list[Login])


class Root(RootModel[dict[str, Login]]):
    pass


class Wrapped(BaseModel, Generic[Bound]):
    inner: Bound


@pytest.mark.parametrize(
    ("annotation", "shape"),
    [
        (dict[str, Login], lambda it: {"user": it, "password": it}),
        (dict[str, dict[str, list[Login]]], lambda it: {"password": {"user": [it]}}),
        (Sequence[Mapping[str, Login]], lambda it: [{"user": it}]),
        (tuple[Login, ...], lambda it: [it, it]),
        (tuple[str, Login], lambda it: ["ann", it]),
        (Renamed, lambda it: it),
        (Logins, lambda it: [it]),
        (Root, lambda it: {"user": it}),
        (Wrapped[Login], lambda it: {"inner": it}),
        (Login | list[Login], lambda it: [it]),
        (list[Login] | None, lambda it: [it]),
    ],
)
def test_secrets_are_found_by_the_type_of_each_value(annotation: Any, shape: Any) -> None:
    """Secrets are found by types, even if a table's keys are names of fields, or a type has another name."""
    fields: Any = {"value": (annotation, ...)}
    number = next(_numbers)
    contract = create_model("C", __base__=Contract, __cls_kwargs__={"kind": f"test.typed.{number}"}, **fields)
    kwargs = {"value": shape({"user": "ann", "password": "s3cret!"})}
    assert hides_fields(contract)
    assert "s3cret!" not in json.dumps(redact(contract, kwargs))
    assert "s3cret!" in secrets_in(contract, (), kwargs)
