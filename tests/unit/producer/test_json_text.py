"""JSON as RFC 8259 has it: Python's additions are refused on the way in, and null on the way out."""

import json
from ipaddress import IPv6Network

import pytest
from pydantic import BaseModel

from millpond.producer import json_text

NAN, INFINITY = float("nan"), float("inf")


class Job(BaseModel):
    """A contract of numbers."""

    x: float | str = 0.0
    many: list[dict[str, float]] = []
    pair: tuple[float, ...] = ()
    several: frozenset[float] = frozenset()


@pytest.mark.parametrize("text", [b"NaN", b'{"a": [Infinity]}', b"-Infinity", b"1e999", b"[-1e999]"])
def test_what_is_no_number_of_json_is_refused(text: bytes) -> None:
    """The literals that Python takes, and a number that would become an infinity."""
    with pytest.raises(ValueError, match="NaN and infinities are not JSON") as refused:
        json_text.parse_json(text)
    assert json_text.describe_fault("the body", refused.value).startswith(
        "the body is not JSON: NaN and infinities"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b" \n", "the body is empty"),
        (b'{"secret"', "the body is not JSON at column 10"),
        (b'{"secret": 1,\n"a" 2}\n', "the body is not JSON at line 2, column 5"),
        (b'"\xff"', "the body is not UTF-8"),
        (b"[" * 200_000, "the body nests too deep"),
        (b"7" * 5_000, "the body has a whole number of too many digits"),
    ],
)
def test_a_fault_is_named_by_its_place(text: bytes, reason: str) -> None:
    """The place in the text is named, and nothing that is in it."""
    with pytest.raises((ValueError, RecursionError)) as refused:
        json_text.parse_json(text)
    assert json_text.describe_fault("the body", refused.value) == reason


def test_what_is_json_is_read_as_python_does() -> None:
    """Numbers, nesting and text are not touched."""
    text = b'{"a": [1, 2.5, 1e300, -0.0], "b": {"c": "NaN"}, "d": null}'
    assert json_text.parse_json(text) == json.loads(text)


@pytest.mark.parametrize(
    "job",
    [
        Job(x=NAN),
        Job(x=-INFINITY),
        Job(many=[{"a": 1.0}, {"b": INFINITY}]),
        Job(pair=(1.0, NAN)),
        Job(several=frozenset([NAN])),
    ],
)
def test_a_contract_with_what_is_no_number_is_refused(job: Job) -> None:
    """pydantic makes NaN of the text "NaN", which is JSON."""
    with pytest.raises(ValueError, match="NaN and infinities"):
        json_text.require_finite(job, b'{"x": "nan or inf"}')
    json_text.require_finite(Job(x="information"), b'{"x": "information"}')


def test_a_network_is_not_taken_for_its_addresses() -> None:
    """Other values that can be iterated have no numbers to refuse, and may have no end."""

    class Route(BaseModel):
        net: IPv6Network = IPv6Network("fd00::/8")
        note: str = "information"

    json_text.require_finite(Route(), b'{"note": "information"}')


def test_what_goes_out_is_json() -> None:
    """Each number that JSON does not have is null, wherever it is; the rest stays as it is."""
    value = {"a": [NAN, 1.5, (INFINITY, "NaN")], "b": {"c": -INFINITY}, "d": True}
    assert json.loads(json_text.to_text(value), parse_constant=pytest.fail) == {
        "a": [None, 1.5, [None, "NaN"]],
        "b": {"c": None},
        "d": True,
    }
    assert json_text.to_text({"a": 1}, separators=(",", ":")) == '{"a":1}'


def test_half_a_surrogate_pair_is_replaced() -> None:
    """Most parsers refuse half a pair, in a value as in a name; a whole one is written as it is."""
    text = json_text.to_text({"a\ud800": ["x\udc00y", "🐟"], "n": float("nan")})
    assert json.loads(text) == {"a\ufffd": ["x\ufffdy", "🐟"], "n": None}
    text.encode()
