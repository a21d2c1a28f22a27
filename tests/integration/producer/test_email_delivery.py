"""A mail is sent once to every recipient, with a real mail server and the real ledger."""

import threading
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from io import BytesIO

import pytest

from millpond.broker.connection import connect
from millpond.tasks.email import mailer as mailer_module
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.ledger import ACCEPTED, MailLedger
from millpond.tasks.email.mailer import Mailer
from millpond.tasks.email.smtp_connections import SmtpConnections
from millpond.tasks.errors import FinalError, OutsideRoots, RetryLater, TooLarge
from millpond.tasks.settings import Smtp

FILES = {"file:///data/report.pdf": b"%PDF" * 100, "large.bin": b"x" * 5000}


@contextmanager
def open_input(url):
    if url not in FILES:
        raise OutsideRoots(f"{url} is outside the roots")
    yield BytesIO(FILES[url])


@pytest.fixture
def ledger(store):
    return MailLedger(store, 3600)


@pytest.fixture
def mailer(sink, ledger, tmp_path):
    (tmp_path / "welcome.txt").write_text("Hello {{ name }}")
    (tmp_path / "welcome.html").write_text("<p>Hello {{ name }}</p>")
    settings = Smtp(
        host="127.0.0.1", port=sink.port, timeout_seconds=5, templates=tmp_path, max_attachment_bytes=4000
    )
    made = Mailer(settings, SmtpConnections(settings), ledger, open_input)
    yield made
    made.connections.close()


def mail(*to: str, **changes) -> SendEmail:
    return SendEmail(
        **{"sender": "ann@example.org", "to": to or "bob@example.org", "text": "hello", **changes}
    )


def test_mail_arrives_whole(sink, mailer):
    """Template, attachment and hidden copy arrive; the receipt names all recipients, the mail none hidden."""
    job = mail(
        text=None,
        template="welcome",
        context={"name": "<Bob>"},
        subject="For {{ name }}",
        bcc="eve@example.org",
        attachments=["file:///data/report.pdf"],
    )
    receipt = mailer.send(job, "t-1")
    assert receipt.accepted == ("bob@example.org", "eve@example.org")
    assert (receipt.refused, receipt.duplicate) == ({}, False)
    [taken] = sink.taken
    assert b"eve@" not in taken.payload
    message = message_from_bytes(taken.payload, policy=default)
    assert message["Message-ID"] == receipt.message_id == "<t-1@millpond.local>"
    assert message["Subject"] == "For <Bob>"
    assert message.get_body(("plain",)).get_content().strip() == "Hello <Bob>"
    assert message.get_body(("html",)).get_content().strip() == "<p>Hello &lt;Bob&gt;</p>"
    [attached] = message.iter_attachments()
    assert (attached.get_filename(), attached.get_content()) == (
        "report.pdf",
        FILES["file:///data/report.pdf"],
    )


def test_mail_that_is_delivered_twice_is_sent_once(sink, mailer):
    """The second delivery of a task sends nothing and gives back the first one's receipt."""
    first = mailer.send(mail(), "t-1")
    second = mailer.send(mail(), "t-1")
    assert len(sink.taken) == 1
    assert second == first.model_copy(update={"duplicate": True})


def test_second_delivery_at_the_same_time_sends_nothing(sink, mailer):
    """While the first delivery waits for the server's answer, the second is delayed."""
    at_server, go_on = threading.Event(), threading.Event()
    sink.before_answer = lambda: (at_server.set(), go_on.wait(10))
    first = threading.Thread(target=mailer.send, args=(mail(), "t-1"))
    first.start()
    try:
        assert at_server.wait(10)
        with pytest.raises(RetryLater, match="another delivery") as busy:
            mailer.send(mail(), "t-1")
        assert 0 < busy.value.after_seconds <= mailer.claim_seconds + 1
    finally:
        go_on.set()
        first.join(10)
    assert mailer.send(mail(), "t-1").duplicate
    assert len(sink.taken) == 1


def test_those_put_off_are_tried_again_alone(sink, mailer):
    """At the retry, only the recipients that were put off get the mail."""
    sink.answers["full@example.org"] = ["452 mailbox full"]
    sink.answers["no@example.org"] = ["550 no such user"]
    job = mail("bob@example.org", "full@example.org", "no@example.org")
    with pytest.raises(RetryLater, match=r"1 of 3 recipients.*full@example.org: 452 mailbox full"):
        mailer.send(job, "t-1")
    receipt = mailer.send(job, "t-1")
    assert [taken.recipients for taken in sink.taken] == [["bob@example.org"], ["full@example.org"]]
    assert set(receipt.accepted) == {"bob@example.org", "full@example.org"}
    assert receipt.refused == {"no@example.org": "550 no such user"}
    assert sink.commands.count("no@example.org") == 1


def test_mail_that_everyone_refuses_fails_and_can_be_sent_again(sink, mailer):
    """With no recipient left the task fails, with each answer; the same task may be sent again."""
    sink.answers["bob@example.org"] = ["550 no such user"]
    with pytest.raises(FinalError, match=r"bob@example\.org: 550 no such user"):
        mailer.send(mail(), "t-1")
    assert mailer.send(mail(), "t-1").accepted == ("bob@example.org",)


@pytest.mark.parametrize("where", ["MAIL", "354", "DATA"])
@pytest.mark.parametrize(("answer", "error"), [("451 later", RetryLater), ("554 never", FinalError)])
def test_failed_delivery_leaves_no_claim(sink, mailer, where, answer, error):
    """After an error the next delivery may send at once: no claim is left to wait for."""
    sink.answers[where] = [answer]
    with pytest.raises(error):
        mailer.send(mail(), "t-1")
    assert not mailer.send(mail(), "t-1").duplicate
    assert len(sink.taken) == 1


def test_broken_connection_after_the_message_is_at_least_once(sink, mailer):
    """If the server took the mail and the answer was lost, it is sent again, under the same Message-ID."""
    sink.answers["DATA"] = ["abort"]
    with pytest.raises(RetryLater, match="may arrive twice"):
        mailer.send(mail(), "t-1")
    mailer.send(mail(), "t-1")
    ids = [message_from_bytes(taken.payload)["Message-ID"] for taken in sink.taken]
    assert ids == ["<t-1@millpond.local>"] * 2


def test_worker_that_died_while_sending_is_followed_up(sink, mailer, ledger):
    """A dead worker's claim excludes others until it ends; then the recipients without the mail get it."""
    ledger.claim("t-1", "dead", seconds=30)
    with pytest.raises(RetryLater, match="or died while sending it"):
        mailer.send(mail(), "t-1")
    ledger.record("t-1", "dead", {"bob@example.org": ACCEPTED}, sent=False)
    receipt = mailer.send(mail("bob@example.org", "eve@example.org"), "t-1")
    assert set(receipt.accepted) == {"bob@example.org", "eve@example.org"}
    assert [taken.recipients for taken in sink.taken] == [["eve@example.org"]]


def test_owner_that_was_overtaken_does_not_commit(sink, ledger, eventually):
    """A delivery whose claim ended while it read an attachment sends nothing once another has taken over."""

    class Impatient(Mailer):
        claim_seconds = 0.2

    @contextmanager
    def slow(url):
        eventually(lambda: ledger.claim("t-1", "another", seconds=30).state == "taken")
        yield BytesIO(b"at last")

    settings = Smtp(host="127.0.0.1", port=sink.port, timeout_seconds=5)
    mailer = Impatient(settings, SmtpConnections(settings), ledger, slow)
    with pytest.raises(RetryLater, match="another delivery"):
        mailer.send(mail(attachments="report.pdf"), "t-1")
    mailer.connections.close()
    assert sink.taken == []


def test_nothing_is_sent_without_the_ledger(sink, mailer, tmp_path):
    """With the ledger away no mail leaves, and the task is retried."""
    away = MailLedger(connect(f"redis+socket://{tmp_path}/none.sock", timeout_seconds=0.5), 3600)
    with pytest.raises(RetryLater, match="nothing was sent"):
        Mailer(mailer.settings, mailer.connections, away, open_input).send(mail(), "t-1")
    assert sink.taken == []


def test_ledger_that_goes_away_after_sending_does_not_undo_it(
    sink, mailer, ledger, tmp_path, monkeypatch, caplog
):
    """A mail that is out counts as sent though the ledger cannot be told; the log says so."""
    away = MailLedger(connect(f"redis+socket://{tmp_path}/none.sock", timeout_seconds=0.5), 3600)
    monkeypatch.setattr(mailer_module, "RECORD_WAITS_SECONDS", (0.0, 0.0))
    half = Mailer(mailer.settings, mailer.connections, _HalfAway(ledger, away), open_input)
    assert half.send(mail(), "t-1").accepted == ("bob@example.org",)
    assert "redelivery would send it again" in caplog.text


class _HalfAway:
    """Claim in one ledger, and write to another."""

    def __init__(self, claims, writes):
        self.claim, self.record, self.forget = claims.claim, writes.record, writes.forget


@pytest.mark.parametrize(
    ("attachments", "error"),
    [
        (["large.bin"], TooLarge),
        (["file:///data/report.pdf"] * 20, TooLarge),
        (["/etc/passwd"], OutsideRoots),
    ],
)
def test_attachments_are_bounded_and_confined(sink, mailer, attachments, error):
    """Attachments over the limit together, or outside the roots, fail the mail for good and send nothing."""
    with pytest.raises(error):
        mailer.send(mail(attachments=attachments), "t-1")
    assert sink.taken == []
