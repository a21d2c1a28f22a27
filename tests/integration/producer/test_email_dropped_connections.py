"""Idle SMTP connections that a firewall dropped without a word do not hold up the next mail."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from millpond.tasks.email import smtp_connections
from millpond.tasks.email.message import Envelope
from millpond.tasks.email.smtp_connections import TRUSTED_SECONDS, SmtpConnections
from millpond.tasks.settings import Smtp
from tests.harness.mail_sink import Sink
from tests.harness.manual_clock import ManualClock
from tests.harness.tcp_proxy import proxy

MAIL = Envelope("<1@x.example>", "ann@example.org", ("bob@example.org",), b"Subject: a\r\n\r\na\r\n", False)


@pytest.mark.parametrize(("idle_seconds", "longest_seconds"), [(61, 2.0), (TRUSTED_SECONDS + 1, 2.5)])
def test_dropped_connections_delay_a_mail_by_one_check(
    sink: Sink, monkeypatch: pytest.MonkeyPatch, idle_seconds: float, longest_seconds: float
) -> None:
    """Four connections without a reply cost a mail one short check, or none if they are closed as too old."""
    monkeypatch.setattr(smtp_connections, "CHECK_SECONDS", 0.5, raising=False)
    clock, together = ManualClock(), Barrier(4)
    with proxy(sink.port) as way:
        settings = Smtp(host="127.0.0.1", port=way.port, timeout_seconds=3, keep_seconds=60)
        connections = SmtpConnections(settings, clock=clock)

        def send(before_data=lambda: None) -> None:
            connections.send(MAIL, MAIL.recipients, before_data=before_data)

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(send, lambda: together.wait(10)) for _ in range(4)]:
                done.result(30)
        way.swallow()
        way.heal()
        clock.now += idle_seconds
        begun = time.monotonic()
        send()
        assert time.monotonic() - begun < longest_seconds
        assert len(sink.taken) == 5
        connections.close()
