"""Flower is shown to this machine alone, unless somebody can log in."""

import pytest

from millpond.monitor.flower import require_login_beyond_loopback, serve
from millpond.tasks.errors import SettingsError
from millpond.tasks.process.loopback import is_loopback
from millpond.tasks.settings import Settings


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "", "::", "192.0.2.7", "example.org", "127.0.0.1.example.org"]
)
def test_other_machines_need_a_login(address: str) -> None:
    """An address that others can reach is refused, and the error says how to go on."""
    with pytest.raises(SettingsError, match="add --basic-auth user:password"):
        require_login_beyond_loopback(address, [])
    require_login_beyond_loopback(address, ["ann:secret"])


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_none(address: str) -> None:
    """Every spelling of loopback goes without a login."""
    assert is_loopback(address)
    require_login_beyond_loopback(address, [])


@pytest.mark.parametrize("login", ["ann", "ann:", ":secret", ""])
def test_half_a_login_is_none(login: str) -> None:
    """A login without a user or a password is refused, and the password is not repeated."""
    with pytest.raises(
        SettingsError, match=r"user:password: correct .*MILLPOND_FLOWER_BASIC_AUTH"
    ) as refused:
        require_login_beyond_loopback("0.0.0.0", [login])
    assert "secret" not in str(refused.value)


def test_without_a_broker_there_is_nothing_to_show() -> None:
    """The error names the setting, and the command that needs none."""
    with pytest.raises(SettingsError, match="set MILLPOND_BROKER_URL, or use millpond up"):
        serve(Settings(), on_ready=print)
