"""Limits of a queue are checked before they are written down."""

import re
from typing import Any

import pytest

from millpond.broker import limits
from millpond.broker.limits import Limits
from millpond.broker.scripts import script


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bound", "x"),
        ("bound", -1),
        ("bound", "nans"),
        ("bound", ""),
        ("bound", "0s"),
        ("rate", float("nan")),
        ("rate", "50/s"),
        ("burst", float("inf")),
        ("in_flight", float("inf")),
        ("max_deliveries", "five"),
        ("dead_keep_ms", -1),
        ("overflow", "sheds"),
        ("overflow", "exempt"),
        ("paused", "maybe"),
        ("paused", 2),
    ],
)
def test_what_is_no_limit_is_refused_before_anybody_is_asked(name: str, value: Any) -> None:
    """Once written down, every sender to the queue and every worker would stumble over it."""
    nobody: Any = None
    with pytest.raises(ValueError, match=f"is not a valid {name} of a queue"):
        limits.change_limits(nobody, "default", **{name: value})


def test_the_bound_of_delayed_messages_that_is_shown_is_kept() -> None:
    """Where nobody set it, the script that publishes keeps the default of the limits."""
    (kept,) = re.findall(r"delayed_bound = .*tonumber\(limits\[2\] or (\d+)\)", script("publish").source)
    assert int(kept) == Limits().delayed_bound
