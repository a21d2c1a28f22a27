"""The broker URL of a user's Celery application, with its TLS options."""

import pytest
from celery import Celery

from millpond.tasks.celery_application import broker_url


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
    """A password that looks like an option does not switch TLS off."""
    app = Celery(broker=setting, set_as_current=False)
    app.conf.broker_use_ssl = {"ssl_ca_certs": "ca.pem"}
    assert broker_url(app) == expected
