"""The broker URL of a user's Celery application, with its TLS options."""

import pytest
from celery import Celery

from millpond.tasks.celery_application import broker_url, load_app
from millpond.tasks.errors import SettingsError


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("redis://h/0", "redis://h/0?ssl=true&ssl_ca_certs=ca.pem"),
        ("redis://:ssl_word@h/0", "redis://:ssl_word@h/0?ssl=true&ssl_ca_certs=ca.pem"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
    ],
)
def test_a_url_gets_the_tls_options_of_the_application_unless_it_has_its_own(
    setting: str, expected: str
) -> None:
    """A URL gets the TLS options of the application, even if its password looks like such an option."""
    app = Celery(broker=setting, set_as_current=False)
    app.conf.broker_use_ssl = {"ssl_ca_certs": "ca.pem"}
    assert broker_url(app) == expected


@pytest.mark.parametrize("app_name", [":app", ".shop", ""])
def test_a_name_without_a_module_is_refused_in_one_line(app_name: str) -> None:
    """The error for a name without a module shows the right form."""
    with pytest.raises(SettingsError, match="app names '', which is no module: write its whole name"):
        load_app(app_name)
