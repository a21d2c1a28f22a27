"""The form of a dead letter's id, which people type and pages send."""

import pytest

from millpond.monitor.dead_letter_search import is_letter_id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1795423079879-0", True),
        ("1795423079879", False),
        ("-0", False),
        ("²-1", False),
        ("1-2-3", False),
        ("9" * 25 + "-0", False),
        ("email", False),
    ],
)
def test_what_is_no_id_of_a_stream_is_not_asked_for(text: str, expected: bool) -> None:
    """The broker would refuse it with an error of its own; a command says that there is none."""
    assert is_letter_id(text) is expected
