"""Contracts whose values would change on their way are refused where they are declared; the others arrive."""

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PrivateAttr,
    Secret,
    SecretBytes,
    SecretStr,
    computed_field,
    create_model,
    field_serializer,
)

from millpond.producer.message import Message, outgoing
from millpond.tasks.contract import Contract, kinds
from millpond.tasks.errors import BadContract
from millpond.tasks.open_fields import refuse_undeclared

numbers = count()


class Login(BaseModel):
    password: SecretStr


class Cat(BaseModel):
    name: str


class Dog(BaseModel):
    name: str


class Colour(Enum):
    RED = "red"


def declared(annotation: Any, default: Any = ..., **changes: Any) -> type[Contract]:
    """Declare a contract with one field."""
    arguments = {"kind": f"test.carried.{next(numbers)}"}
    fields: Any = {"value": (annotation, default)}
    return create_model("Carried", __base__=Contract, __cls_kwargs__=arguments, **fields, **changes)


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (SecretStr, ...),
        (SecretBytes, ...),
        (Secret[int], ...),
        (SecretStr | None, None),
        (list[SecretStr], ...),
        (Login, ...),
        (dict[str, list[Login]], ...),
        (bytes, ...),
        (dict[str, bytes], ...),
        (Json, ...),
        (Json[list[int]], ...),
        (str | datetime, ...),
        (str | Path, ...),
        (Decimal | str, ...),
        (set[int] | list[int], ...),
        (Cat | Dog, ...),
        (Colour | str, ...),
        (Annotated[int, PlainSerializer(str)], ...),
        (list[Annotated[int, PlainSerializer(str)]], ...),
        (int, Field(alias="number")),
        (int, Field(validation_alias=AliasChoices("a", "b"))),
        (int, Field(default=1, exclude=True)),
    ],
)
def test_what_would_change_on_its_way_is_refused_when_declared(annotation: Any, default: Any) -> None:
    """One line names the field and the remedy; no kind of that name is left behind."""
    before = kinds()
    with pytest.raises(BadContract, match=r"value.*: (write|choose|send|leave|make)") as caught:
        declared(annotation, default)
    assert "\n" not in str(caught.value)
    assert kinds() == before


def test_what_is_no_field_is_refused() -> None:
    """Private attributes are not sent; computed fields and own serializers are not read back."""
    with pytest.raises(BadContract, match="_note is private"):

        class Private(Contract, kind="test.carried.private"):
            _note: str = PrivateAttr("")

    with pytest.raises(BadContract, match="twice is a computed field"):

        class Computed(Contract, kind="test.carried.computed"):
            n: int

            @computed_field
            def twice(self) -> int:
                return 2 * self.n

    with pytest.raises(BadContract, match="serializer of its own"):

        class Written(Contract, kind="test.carried.written"):
            n: int

            @field_serializer("n")
            def _text(self, n: int) -> str:
                return str(n)


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True)
    day: date = date(2026, 1, 1)
    many: tuple[int, ...] = ()


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CARRIED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (int | float, st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))),
    (bool | int | str | None, st.one_of(st.booleans(), st.integers(), text, st.none())),
    (str, text),
    (Base64Bytes, st.just(b"aGVsbG8=")),
    (datetime, st.datetimes()),
    (timedelta, st.timedeltas(timedelta(-9999), timedelta(9999))),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (Path, st.just(Path("/a/b"))),
    (Colour, st.just(Colour.RED)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (frozenset[int], st.frozensets(st.integers())),
    (tuple[int, str], st.tuples(st.integers(), text)),
    (dict[str, list[date]], st.dictionaries(text, st.lists(st.dates()))),
    (Inner, st.builds(Inner, day=st.dates(), many=st.tuples(st.integers()))),
    (Inner | None, st.one_of(st.none(), st.builds(Inner, day=st.dates()))),
]
ACCEPTED = [(declared(annotation), values) for annotation, values in CARRIED]


@given(st.data())
def test_what_is_accepted_arrives_as_it_was_sent(data: st.DataObject) -> None:
    """Written as a producer writes it and read as a worker does, a job is the same, types and all."""
    contract, values = data.draw(st.sampled_from(ACCEPTED))
    job = contract.model_validate({"value": data.draw(values)})
    wire = json.dumps(job.model_dump(mode="json", exclude_defaults=True))
    arrived = contract.model_validate(json.loads(wire))
    assert arrived == job
    assert type(arrived.value) is type(job.value)  # type: ignore[attr-defined]


class _Account(BaseModel):
    name: str = "a"
    password: str = Field("correct horse", repr=False)


class _Login(BaseModel):
    password: SecretStr = SecretStr("correct horse")


class Opaque(Contract, kind="carried.opaque"):
    """Has fields whose type does not say what is in them, and one that declares a model with such a field."""

    anything: Any = None
    table: dict[str, Any] = {}
    rows: list = []  # type: ignore[type-arg]
    pair: tuple[Cat, Any] = (Cat(name="c"), None)


@pytest.mark.parametrize("hidden", [_Account(), _Login(), SecretStr("correct horse")], ids=repr)
@pytest.mark.parametrize(
    "fields",
    [
        lambda it: {"anything": it},
        lambda it: {"table": {"deep": [{"in": it}]}},
        lambda it: {"rows": [1, (it,)]},
        lambda it: {"pair": (Cat(name="c"), {"in": it})},
    ],
    ids=["Any", "dict", "list", "tuple"],
)
def test_what_an_open_field_would_send_in_the_open_or_as_stars_is_refused(
    fields: Callable[[Any], dict[str, Any]], hidden: Any
) -> None:
    """A model or a secret in a field that does not declare it is refused as it is sent, and not repeated."""
    job = Opaque(**fields(hidden))
    with pytest.raises(BadContract, match=r"^carried.opaque cannot be sent: \w+ holds") as refused:
        refuse_undeclared(job)
    assert "horse" not in str(refused.value)
    with pytest.raises(BadContract, match="cannot be sent"):
        outgoing(Message(job), job, queue="default", now_ms=0)


def test_what_json_can_write_is_sent_in_an_open_field() -> None:
    """Plain values and declared models are no fault."""
    refuse_undeclared(Opaque(anything=[1, "a", None, {"b": (2.5, True)}], pair=(Cat(name="d"), 1)))
