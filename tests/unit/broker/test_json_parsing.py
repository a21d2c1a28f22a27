"""The quicker parser takes and refuses the same texts as the standard library."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.broker.message import parse_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_reads_what_the_standard_library_writes(value: object) -> None:
    """Text and bytes, escaped or not."""
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@given(st.text(alphabet='{}[]":,\\u09 eE+-.tfn\ud800', max_size=12) | st.text(max_size=6))
def test_refuses_what_the_standard_library_refuses(text: str) -> None:
    """The same texts, and with an error that its callers expect."""
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            parse_json(text)
    else:
        assert repr(parse_json(text)) == repr(expected)


def test_takes_what_only_the_standard_library_takes() -> None:
    """Half a surrogate pair, a number that is none, UTF-16."""
    assert parse_json('"\\ud800"') == "\ud800"
    assert math.isnan(parse_json("NaN"))
    assert parse_json('{"a": "é"}'.encode("utf-16")) == {"a": "é"}
