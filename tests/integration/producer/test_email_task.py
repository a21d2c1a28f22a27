"""Check the mail tasks as a worker calls them: wired by the settings to mail server, ledger and storage."""

import os

import pytest

from millpond.tasks.context import Context
from millpond.tasks.email import task
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.errors import OutsideRoots, SettingsError
from millpond.tasks.settings import settings


@pytest.fixture
def wired(monkeypatch, sink, url, prefix, tmp_path):
    """Set the environment of a worker; give its data folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "report.txt").write_text("all is well")
    (tmp_path / "outside.txt").write_text("secret")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "BROKER_URL": url,
        "KEY_PREFIX": prefix,
        "SMTP__HOST": "127.0.0.1",
        "SMTP__PORT": str(sink.port),
        "FILES__ROOTS": f'["{tmp_path}/data"]',
    }.items():
        monkeypatch.setenv(f"MILLPOND_{name}", value)
    yield tmp_path
    mailer = task._shared_mailer(settings())
    mailer.connections.close()
    mailer.ledger.store.close()
    task._shared_mailer.forget()


def mail(**changes) -> SendEmail:
    return SendEmail(**{"sender": "ann@example.org", "to": "bob@example.org", "text": "hello", **changes})


def test_body_sends_by_the_settings(sink, wired):
    """The body finds server, ledger and attachment by the settings, and a second delivery is a duplicate."""
    job = mail(attachments="report.txt")
    assert not task.send_email(job, Context(id="t-1")).duplicate
    assert task.send_email(job, Context(id="t-1", deliveries=2)).duplicate
    assert len(sink.taken) == 1
    assert b"report.txt" in sink.taken[0].payload


def test_child_of_a_fork_leaves_its_parents_connection_alone(sink, wired):
    """A forked child gets connections of its own, and does not disturb its parent's conversation."""
    task.send_email(mail(), Context(id="t-1"))
    child = os.fork()
    if not child:
        code = 1
        try:
            task.send_email(mail(), Context(id="t-2"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    task.send_email(mail(), Context(id="t-3"))
    assert (len(sink.taken), len(sink.peers)) == (3, 2)


def test_attachment_outside_the_roots_is_refused(sink, wired):
    """A file outside every allowed root is never attached."""
    with pytest.raises(OutsideRoots):
        task.send_email(mail(attachments=str(wired / "outside.txt")), Context(id="t-1"))
    assert sink.taken == []


@pytest.mark.parametrize("missing", ["USERNAME", "PASSWORD", None])
def test_login_is_never_sent_in_the_clear_by_accident(monkeypatch, tmp_path, missing):
    """A login that is not whole, or has no encryption to go by, is refused when the settings are read."""
    monkeypatch.chdir(tmp_path)
    for name in {"USERNAME", "PASSWORD"} - {missing}:
        monkeypatch.setenv(f"MILLPOND_SMTP__{name}", "x")
    with pytest.raises(SettingsError, match="SMTP"):
        settings()
    if missing is None:
        monkeypatch.setenv("MILLPOND_SMTP__ALLOW_PLAINTEXT_LOGIN", "true")
        assert settings().smtp.username == "x"
