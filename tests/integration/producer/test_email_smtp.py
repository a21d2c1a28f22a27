"""Check the SMTP conversation against a real server: encryption, login, answers, connections."""

import hmac
import smtplib
import ssl
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import trustme
from aiosmtpd.smtp import AuthResult
from billiard.exceptions import SoftTimeLimitExceeded
from pydantic import SecretStr

from millpond.tasks.email import smtp_session
from millpond.tasks.email.message import Envelope
from millpond.tasks.email.smtp_connections import REFUSED_PAUSE_SECONDS, TRUSTED_SECONDS, SmtpConnections
from millpond.tasks.email.smtp_login import Utf8Login, Utf8Text
from millpond.tasks.email.smtp_session import ConnectionBroken, ServerRefused
from millpond.tasks.errors import FinalError, RetryLater, SettingsError
from millpond.tasks.settings import Smtp
from tests.harness.mail_sink import mail_sink
from tests.harness.manual_clock import ManualClock


def envelope(*recipients: str, utf8: bool = False) -> Envelope:
    payload = b"Subject: hello\r\n\r\n.a line that begins with a dot\r\nthe end\r\n"
    return Envelope("<1@x.example>", "ann@example.org", recipients or ("bob@example.org",), payload, utf8)


def smtp(port: int, **changes) -> Smtp:
    return Smtp(**{"host": "127.0.0.1", "port": port, "timeout_seconds": 5, **changes})


def send(connections: SmtpConnections, *recipients: str):
    mail = envelope(*recipients)
    return connections.send(mail, mail.recipients)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def connections(sink, clock):
    made = SmtpConnections(smtp(sink.port), clock=clock)
    yield made
    made.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def server_tls(authority) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_message_arrives_as_it_was_made(sink, connections):
    """The server gets sender, recipients and exactly the bytes, dots at the start of lines included."""
    delivery = send(connections, "bob@example.org", "eve@example.org")
    assert delivery.accepted == ("bob@example.org", "eve@example.org")
    [taken] = sink.taken
    assert (taken.sender, taken.recipients) == ("ann@example.org", ["bob@example.org", "eve@example.org"])
    assert taken.payload == envelope().payload


def test_connection_is_kept_for_the_next_message(sink, connections):
    """Twenty messages one after the other go by one connection."""
    for _ in range(20):
        send(connections)
    assert (len(sink.taken), len(sink.peers)) == (20, 1)


def test_connections_are_never_more_than_slots(sink, connections):
    """Four slots that send at the same time open four connections, and use the same four again."""
    together = Barrier(4)

    def slot() -> None:
        for _ in range(5):
            together.wait(10)
            send(connections)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(slot) for _ in range(4)]:
            done.result(30)
    assert len(sink.taken) == 20
    assert len(sink.peers) <= 4


def test_idle_connection_is_asked_before_use(sink, connections, clock):
    """A connection that rested is used again only after the server answered RSET."""
    send(connections)
    clock.now += TRUSTED_SECONDS + 1
    send(connections)
    assert sink.commands.count("RSET") == 1
    assert len(sink.peers) == 1


def test_idle_connection_that_does_not_answer_well_is_replaced(sink, connections, clock):
    """A server that says it is closing gets a new connection, and the message arrives once."""
    send(connections)
    clock.now += TRUSTED_SECONDS + 1
    sink.answers["RSET"] = ["421 closing"]
    send(connections)
    assert (len(sink.taken), len(sink.peers)) == (2, 2)


def test_connection_idle_for_too_long_is_dropped(sink, clock):
    """After keep_seconds the next message goes by a new connection, without asking the old one."""
    connections = SmtpConnections(smtp(sink.port, keep_seconds=60), clock=clock)
    send(connections)
    clock.now += 61
    send(connections)
    assert len(sink.peers) == 2
    assert "RSET" not in sink.commands
    connections.close()


@pytest.mark.parametrize("where", ["MAIL", "bob@example.org"])
@pytest.mark.parametrize("answer", ["abort", "421 too many messages on this connection"])
def test_kept_connection_that_breaks_before_the_message_is_replaced(sink, connections, where, answer):
    """A kept connection that ends before the message was sent costs no retry: another is opened, once."""
    send(connections)
    sink.answers[where] = [answer]
    send(connections)
    assert (len(sink.taken), len(sink.peers)) == (2, 2)


def test_new_connection_that_breaks_is_retried_later(sink, connections):
    """A connection that breaks on its first message is not tried again at once."""
    sink.answers["MAIL"] = ["abort"]
    with pytest.raises(ConnectionBroken) as caught:
        send(connections)
    assert not caught.value.data_sent
    assert sink.taken == []


@pytest.mark.parametrize("where", ["354", "DATA"])
def test_connection_that_breaks_in_the_message_is_not_repeated_at_once(sink, connections, where):
    """A break once the message was on its way leaves a doubt, so the message is not sent again at once."""
    send(connections)
    sink.answers[where] = ["abort"]
    with pytest.raises(ConnectionBroken, match="may arrive twice") as caught:
        send(connections)
    assert caught.value.data_sent
    assert len(sink.peers) == 1


def test_connection_of_an_interrupted_message_is_not_used_again(sink, connections, monkeypatch):
    """The reply that a time limit kept from being read is not taken for one to the next message."""

    def interrupted_data(client, message):
        client.docmd("DATA")
        client.send(message + b".\r\n")
        raise SoftTimeLimitExceeded

    with monkeypatch.context() as patched:
        patched.setattr(smtplib.SMTP, "data", interrupted_data)
        with pytest.raises(SoftTimeLimitExceeded):
            send(connections)
    sink.answers["no@example.org"] = ["550 no such user"]
    delivery = send(connections, "bob@example.org", "no@example.org")
    assert delivery.accepted == ("bob@example.org",)
    assert delivery.refused == {"no@example.org": "550 no such user"}
    assert len(sink.peers) == 2


@pytest.mark.parametrize(
    ("where", "named"), [("MAIL", "the sender"), ("354", "the message"), ("DATA", "the message")]
)
def test_answers_decide_between_later_and_never(sink, connections, where, named):
    """4xx to the message is RetryLater, 5xx FinalError, in the server's words; the connection lives on."""
    sink.answers[where] = ["451 come back", "554 never"]
    with pytest.raises(RetryLater, match=f"{named}.*451 come back") as later:
        send(connections)
    assert not isinstance(later.value, ConnectionBroken)
    with pytest.raises(FinalError, match=f"{named}.*554 never"):
        send(connections)
    send(connections)
    assert (len(sink.taken), len(sink.peers)) == (1, 1)


def test_recipients_are_answered_one_by_one(sink, connections):
    """One accepted, one refused, one put off: the message goes to the first, each has its answer."""
    sink.answers["no@example.org"] = ["550 no such user"]
    sink.answers["full@example.org"] = ["452 mailbox full"]
    delivery = send(connections, "bob@example.org", "no@example.org", "full@example.org")
    assert delivery.accepted == ("bob@example.org",)
    assert delivery.refused == {"no@example.org": "550 no such user"}
    assert delivery.deferred == {"full@example.org": "452 mailbox full"}
    assert sink.taken[0].recipients == ["bob@example.org"]


def test_too_many_recipients_are_deferred(sink, connections):
    """552 to a recipient means too many of them, as 452 (RFC 5321, 4.5.3.1.10): the rest is sent later."""
    sink.answers["carl@example.org"] = ["552 too many recipients"]
    delivery = send(connections, "bob@example.org", "carl@example.org")
    assert delivery.accepted == ("bob@example.org",)
    assert (delivery.refused, delivery.deferred) == ({}, {"carl@example.org": "552 too many recipients"})


def test_nothing_is_sent_when_nobody_is_accepted(sink, connections):
    """A message that no recipient is accepted for is not transmitted, and the connection serves the next."""
    sink.answers["bob@example.org"] = ["550 no such user"]
    assert send(connections).refused == {"bob@example.org": "550 no such user"}
    assert sink.taken == []
    send(connections)
    assert (len(sink.taken), len(sink.peers)) == (1, 1)


def test_server_that_does_not_answer_is_left_after_the_timeout(sink):
    """A server that hangs holds the slot for timeout_seconds, then the message is retried later."""
    sink.answers["MAIL"] = ["hang"]
    with pytest.raises(ConnectionBroken, match="timed out"):
        send(SmtpConnections(smtp(sink.port, timeout_seconds=0.3)))


def test_server_that_is_away_is_retried_later():
    """A server that does not listen is RetryLater, and the message names host and port."""
    with mail_sink() as gone:
        port = gone.port
    with pytest.raises(RetryLater, match=f"127.0.0.1:{port} cannot be reached"):
        send(SmtpConnections(smtp(port)))


def test_starttls_and_tls_verify_the_server(server_tls, ca_file):
    """With the authority named, mail goes by STARTTLS and by TLS."""
    for how in ("starttls", "tls"):
        with mail_sink(**{how: server_tls}) as sink:
            connections = SmtpConnections(smtp(sink.port, security=how, ca_file=ca_file))
            send(connections)
            connections.close()
            assert len(sink.taken) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("how", ["starttls", "tls"])
def test_unknown_authority_is_refused(server_tls, how):
    """A certificate of an unknown authority ends the attempt, and the error names the setting."""
    with mail_sink(**{how: server_tls}) as sink:
        with pytest.raises(ServerRefused, match="MILLPOND_SMTP__CA_FILE"):
            send(SmtpConnections(smtp(sink.port, security=how)))
        assert sink.taken == []


def test_a_missing_file_of_authorities_leaves_no_connection(sink, tmp_path, monkeypatch):
    """If the file of authorities is missing, the error names the setting, and the connection is closed."""
    clients, open_client = [], smtp_session._open_client
    monkeypatch.setattr(
        smtp_session, "_open_client", lambda settings: clients.append(open_client(settings)) or clients[0]
    )
    with pytest.raises(SettingsError, match="MILLPOND_SMTP__CA_FILE"):
        smtp_session.connect(smtp(sink.port, security="starttls", ca_file=tmp_path / "none.pem"))
    is_open = clients[0].sock is not None
    clients[0].close()
    assert not is_open


def test_starttls_is_never_left_out(sink):
    """A server that offers no STARTTLS gets neither the message nor the password."""
    settings = smtp(sink.port, security="starttls", username="ann", password=SecretStr("secret"))
    with pytest.raises(ServerRefused, match="STARTTLS"):
        send(SmtpConnections(settings))
    assert sink.taken == []


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_login(server_tls, ca_file):
    """A right login sends, over an encrypted connection."""
    login = {"username": "ann", "password": SecretStr("secret")}
    with mail_sink(starttls=server_tls, auth_required=True) as sink:
        connections = SmtpConnections(smtp(sink.port, security="starttls", ca_file=ca_file, **login))
        send(connections)
        connections.close()
        assert len(sink.taken) == 1


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_login_outside_ascii(server_tls, ca_file, mechanism):
    """A name and password of any letters are sent as UTF-8 (RFC 4616)."""
    login = {"username": "jörg", "password": SecretStr("pässwörd€")}
    seen = []

    def authenticate(_server, _session, _envelope, _mechanism, data):
        seen.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=True)

    other = [each for each in ("PLAIN", "LOGIN") if each != mechanism]
    options = {"authenticator": authenticate, "auth_exclude_mechanism": other}
    with mail_sink(starttls=server_tls, auth_required=True, **options) as sink:
        connections = SmtpConnections(smtp(sink.port, security="starttls", ca_file=ca_file, **login))
        send(connections)
        connections.close()
    assert seen == [("jörg", "pässwörd€")]


def test_login_outside_ascii_answers_a_challenge():
    """CRAM-MD5 takes the digest by the UTF-8 of the password (RFC 2195)."""
    client = Utf8Login()
    client.user, client.password = Utf8Text("jörg"), Utf8Text("pässwörd€")
    expected = hmac.new("pässwörd€".encode(), b"<1@x>", "md5").hexdigest()
    assert client.auth_cram_md5(b"<1@x>").encode("ascii") == f"jörg {expected}".encode()


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_refused_login_is_not_repeated_by_every_message(server_tls, ca_file, clock):
    """A wrong password is said in words, without it, and the server is asked again only after a while."""
    login = {"username": "ann", "password": SecretStr("hunter2")}
    with mail_sink(tls=server_tls, auth_required=True) as sink:
        connections = SmtpConnections(smtp(sink.port, security="tls", ca_file=ca_file, **login), clock=clock)
        with pytest.raises(ServerRefused, match="535") as caught:
            send(connections)
        assert "hunter2" not in str(caught.value)
        asked = len(sink.peers)
        with pytest.raises(RetryLater, match="535") as again:
            send(connections)
        assert again.value.after_seconds == pytest.approx(REFUSED_PAUSE_SECONDS)
        assert len(sink.peers) == asked
        clock.now += REFUSED_PAUSE_SECONDS + 1
        with pytest.raises(ServerRefused):
            send(connections)
        assert len(sink.peers) == asked + 1


def test_address_outside_ascii_needs_smtputf8():
    """Such an address goes to a server that offers SMTPUTF8, and is FinalError for one that does not."""
    mail = envelope("jörg@example.org", utf8=True)
    with mail_sink() as sink:
        connections = SmtpConnections(smtp(sink.port))
        connections.send(mail, mail.recipients)
        connections.close()
        assert sink.taken[0].recipients == ["jörg@example.org"]
    with mail_sink(enable_SMTPUTF8=False) as sink:
        connections = SmtpConnections(smtp(sink.port))
        with pytest.raises(FinalError, match="SMTPUTF8"):
            connections.send(mail, mail.recipients)
        connections.close()
