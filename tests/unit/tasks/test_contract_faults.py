"""A contract whose values would change as JSON is refused when it is declared. Other values do not change."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from itertools import count
from pathlib import Path
from re import Pattern
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
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

from millpond.producer.message import Message, compose_job
from millpond.tasks.contract import Contract, contracts_by_kind, job_from_fields
from millpond.tasks.errors import BadContract
from millpond.tasks.middleware import Sending
from millpond.tasks.wire_fields import wire_fields

numbers = count()


class Login(BaseModel):
    password: SecretStr


class Cat(BaseModel):
    name: str


class Dog(BaseModel):
    name: str


class Colour(Enum):
    RED = "red"


class Number(Enum):
    ONE = 1


class Pair(NamedTuple):
    word: Annotated[str, Field(repr=False)]


@dataclass
class Record:
    word: SecretStr


class Puppy(Dog):
    age: int = 1


class Barks(BaseModel):
    by: Literal["dog"] = "dog"
    loud: bool = True


class Mews(BaseModel):
    by: Literal["cat"] = "cat"
    loud: bool = False


class Ages(BaseModel):
    model_config = ConfigDict(extra="allow")


def declared(annotation: Any, default: Any = ..., **changes: Any) -> type[Contract]:
    """Declare a contract with one field."""
    arguments = {"kind": f"test.carried.{next(numbers)}"}
    fields: Any = {"value": (annotation, default)}
    return create_model("Carried", __base__=Contract, __cls_kwargs__=arguments, **fields, **changes)


@pytest.mark.filterwarnings("ignore:The 'repr' attribute")  # pydantic's own word of a part that is hidden
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
        (Pattern[str], ...),
        (Iterable[int], ...),
        (Callable[[], int] | None, None),
        (type[int], ...),
        (Literal[b"a"], ...),
        (dict[tuple[int, int], str], ...),
        (dict[int | str, str], ...),
        (list[dict[Number, int]], ...),
        (dict[str | None, int], ...),
        (list[Annotated[str, Field(repr=False)]], ...),
        (Pair, ...),
        (Record, ...),
    ],
)
def test_what_would_change_on_its_way_is_refused_when_declared(annotation: Any, default: Any) -> None:
    """The error is one line with the field and the remedy. The kind is not registered."""
    before = contracts_by_kind()
    with pytest.raises(BadContract, match=r"value.*: (write|choose|send|leave|make)") as caught:
        declared(annotation, default)
    assert "\n" not in str(caught.value)
    assert contracts_by_kind() == before


def test_a_union_that_json_writes_alike_is_refused_with_the_remedy() -> None:
    """The error for a union of similar models names both, and the remedy."""
    with pytest.raises(BadContract, match="Barks or Mews: choose one, or give models a discriminator"):

        class Undivided(Contract, kind="carried.undivided"):
            animal: Barks | Mews


def test_what_is_no_field_is_refused() -> None:
    """Private attributes, computed fields and own serializers are refused: no handler would get them."""
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


class Serialized(BaseModel):
    n: int

    @field_serializer("n")
    def _text(self, n: int) -> str:
        return str(n)


def test_a_dataclass_with_an_undefined_annotation_is_refused_in_one_line() -> None:
    """The error names the field, the dataclass and the name that is not defined."""

    @dataclass
    class Place:
        town: "Missing"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(
        BadContract, match="value is Place, which names Missing, and there is none: "
    ) as caught:
        declared(Place)
    assert "\n" not in str(caught.value)


def test_a_serializer_of_a_nested_model_is_refused_by_the_name_of_its_field() -> None:
    """The error begins with the field of the contract."""
    with pytest.raises(BadContract, match="carried: value has a serializer of its own: send"):
        declared(Serialized)


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
    (dict[int, str] | None, st.dictionaries(st.integers(), text)),
    (dict[Colour, int], st.just({Colour.RED: 1})),
    (Annotated[Barks | Mews, Field(discriminator="by")], st.sampled_from([Barks(), Mews(loud=True)])),
    (list[Barks], st.lists(st.builds(Barks, loud=st.booleans()))),
    (Annotated[str, AfterValidator(str.upper)], text),
    (Any, st.recursive(st.none() | text | st.integers(), lambda v: st.lists(v) | st.dictionaries(text, v))),
    (Inner, st.builds(Inner, day=st.dates(), many=st.tuples(st.integers()))),
    (Inner | None, st.one_of(st.none(), st.builds(Inner, day=st.dates()))),
]
ACCEPTED = [(declared(annotation), values) for annotation, values in CARRIED]


@given(st.data())
def test_what_is_accepted_arrives_as_it_was_sent(data: st.DataObject) -> None:
    """A job that a producer writes and a worker reads has the same values of the same types."""
    contract, values = data.draw(st.sampled_from(ACCEPTED))
    job = contract.model_validate({"value": data.draw(values)})
    wire = json.dumps(wire_fields(job))
    arrived = job_from_fields(contract, json.loads(wire))
    assert arrived == job
    assert type(arrived.value) is type(job.value)  # type: ignore[attr-defined]


class _Account(BaseModel):
    name: str = "a"
    password: str = Field("correct horse", repr=False)


class _Login(BaseModel):
    password: SecretStr = SecretStr("correct horse")


class Opaque(Contract, kind="carried.opaque"):
    """A contract with fields of open types, and a field in which such a type is beside a model."""

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
    """A model or secret in a field of an open type is refused when it is sent. The error does not show it."""
    job = Opaque(**fields(hidden))
    with pytest.raises(BadContract, match=r"^carried.opaque cannot be sent: [\w.]+ holds") as refused:
        wire_fields(job)
    assert "horse" not in str(refused.value)
    with pytest.raises(BadContract, match="cannot be sent"):
        compose_job(Message(job), Sending(job, "1", "default"), now_ms=0)


def test_what_json_can_write_is_sent_in_an_open_field() -> None:
    """Plain values and declared models are accepted in open fields. A tuple becomes a list."""
    job = Opaque(anything=[1, "a", None, {"b": (2.5, True)}], pair=(Cat(name="d"), 1))
    assert wire_fields(job) == {
        "anything": [1, "a", None, {"b": [2.5, True]}],
        "pair": [{"name": "d"}, 1],
    }


def counted(value: int) -> int:
    """Return another value than the given one."""
    return value + 1


@pytest.mark.parametrize(
    ("annotation", "value", "fault"),
    [
        (Any, date(2026, 1, 1), "value holds a date, which arrives as a str: declare its type"),
        (
            dict,
            {"a": [Decimal("1.5")]},
            "value.a.0 holds a Decimal, which arrives as a str",
        ),
        (dict[str, Any], {"a": {1: "b"}}, "value.a has keys that are no text"),
        (object, b"text", "value holds a bytes, which arrives as a str: declare its type"),
        (Dog, Puppy(name="p"), "value holds a Puppy, which arrives as a Dog: declare its type"),
        (list[Dog], [Dog(name="d"), Puppy(name="p")], "value.1 holds a Puppy, which arrives as a Dog"),
        (Ages, Ages.model_validate({"old": {1}}), "value.old holds a set, which arrives as a list"),
        (Annotated[int, AfterValidator(counted)], 1, "value arrives as another value: a validator must"),
        (Annotated[int, BeforeValidator(counted)], 1, "value arrives as another value: a validator must"),
    ],
)
def test_a_value_that_would_arrive_changed_is_refused_as_it_is_sent(
    annotation: Any, value: Any, fault: str
) -> None:
    """The error is one line with the place and the types, and without the value."""
    job = declared(annotation)(value=value)  # type: ignore[call-arg]
    with pytest.raises(BadContract) as refused:
        wire_fields(job)
    assert str(refused.value).startswith(f"{job.kind} cannot be sent: {fault}")


def test_a_strict_contract_is_read_from_json() -> None:
    """A strict contract accepts JSON's texts and lists for dates, UUIDs and tuples."""

    class Strict(Contract, kind="carried.strict", strict=True):
        day: date
        number: UUID
        names: tuple[str, ...] = ()

    job = Strict(day=date(2026, 1, 1), number=UUID(int=7), names=("a",))
    assert job_from_fields(Strict, json.loads(json.dumps(wire_fields(job)))) == job
    with pytest.raises(BadContract, match="day: "):
        job_from_fields(Strict, {"day": 5, "number": "7"})
