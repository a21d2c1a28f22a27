"""Fixture: slots that are sampled."""

import pytest

from tests.harness.sampled_slots import Slots


@pytest.fixture
def slots() -> Slots:
    """Run slots of the test's own."""
    return Slots()
