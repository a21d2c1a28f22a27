"""Times in Celery's headers, at the ends of the calendar."""

import pytest

from millpond.broker.header_times import format_eta, parse_eta_ms


@pytest.mark.parametrize(
    ("eta", "in_utc"),
    [
        ("9999-12-31T23:59:59.999999-05:00", "9999-12-31T23:59:59+00:00"),
        ("0001-01-01T00:00:00+05:00", "0001-01-01T00:00:00+00:00"),
        ("2026-11-30T15:00:00-05:00", "2026-11-30T20:00:00+00:00"),
    ],
)
def test_a_time_beyond_those_of_utc_is_the_first_or_the_last_one(eta: str, in_utc: str) -> None:
    """`datetime.max` of a zone west of Greenwich can be shown, and a message that expires then can be run."""
    assert format_eta(parse_eta_ms(eta)) == in_utc


def test_a_stored_time_beyond_those_of_utc_can_be_shown() -> None:
    """A message that an earlier version delayed for ever does not end the reply of `inspect scheduled`."""
    assert format_eta(253_402_318_799_000) == "9999-12-31T23:59:59+00:00"
