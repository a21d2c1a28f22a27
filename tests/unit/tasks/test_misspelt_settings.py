"""A variable that is all but named as a setting is told; others are nobody's business."""

import logging
from collections.abc import Iterator

import pytest

from millpond.tasks.settings import settings


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MILLPOND_BROKER_ULR", "MILLPOND_BROKER_URL"),
        ("MILLPOND_FLOWER_READONLY", "MILLPOND_FLOWER_READ_ONLY"),
        ("MILLPOND_CONFG", "MILLPOND_CONFIG"),
    ],
)
def test_a_slip_is_told(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, once a process, with the name that was meant."""
    monkeypatch.setenv(name, "1")
    with caplog.at_level(logging.WARNING):
        settings()
        settings()
    assert caplog.messages == [f"{name} is set, and no setting is called so: did you mean {meant}?"]


@pytest.mark.parametrize(
    "name", ["MILLPOND_BROKER_URL", "MILLPOND_DEBUG", "MILLPOND_TEST_BASE", "MILLPOND_SMTP__HOST"]
)
def test_a_setting_and_what_is_of_others_are_not(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is read is right, and what is named otherwise altogether may be anybody's."""
    monkeypatch.setenv(name, "1")
    with caplog.at_level(logging.WARNING):
        settings()
    assert not caplog.messages
