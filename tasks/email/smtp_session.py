"""Use an SMTP session: connect, submit a message, and return the reply for each recipient.

The replies for single recipients are values (`SmtpResult`). A reply that refuses the whole message is an
error: `RetryLater` for 4xx and for a broken connection, `FinalError` for 5xx (RFC 5321, section 4.2.1).
"""

import smtplib
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from millpond.tasks.email.message import Envelope
from millpond.tasks.email.smtp_login import Utf8Login, Utf8LoginTls
from millpond.tasks.errors import FinalError, RetryLater, SettingsError
from millpond.tasks.settings import Smtp

MAX_REPLY_CHARACTERS = 200
#: The reply of servers before RFC 5321 (4.5.3.1.10) to too many recipients, in place of 452.
_TOO_MANY_RECIPIENTS = 552


class ConnectionBroken(RetryLater):
    """The connection broke. If `data_sent`, the server may or may not have accepted the message."""

    def __init__(self, message: str, *, data_sent: bool = False) -> None:
        super().__init__(message)
        self.data_sent = data_sent


class ServerRefused(RetryLater):
    """The settings allow no connection: the certificate, the encryption or the login is refused."""


@dataclass(frozen=True)
class SmtpResult:
    """The addresses for which the server accepted a message, and its reply for each of the others."""

    accepted: tuple[str, ...] = ()
    #: Refused for good (5xx).
    refused: dict[str, str] = field(default_factory=dict)
    #: Refused for now (4xx).
    deferred: dict[str, str] = field(default_factory=dict)


def connect(settings: Smtp) -> smtplib.SMTP:
    """Return a connection that is encrypted and logged in as the settings require.

    Raises `ConnectionBroken`, `ServerRefused`, and `SettingsError` for a missing file of certificates.
    """
    server = f"the SMTP server {settings.host}:{settings.port}"
    try:
        client = _open_client(settings)
    except ssl.SSLError as error:
        raise ServerRefused(
            f"{server}: TLS failed ({error}). Check MILLPOND_SMTP__SECURITY, or name its "
            "authority in MILLPOND_SMTP__CA_FILE"
        ) from error
    except (OSError, smtplib.SMTPException) as error:
        raise ConnectionBroken(f"{server} cannot be reached: {error or type(error).__name__}") from error
    try:
        _encrypt_and_log_in(client, settings)
    except ssl.SSLError as error:
        raise ServerRefused(
            f"{server}: STARTTLS failed ({error}). Is its authority named in MILLPOND_SMTP__CA_FILE?"
        ) from error
    except smtplib.SMTPServerDisconnected as error:
        raise ConnectionBroken(f"{server} closed the connection: {error}") from error
    except (smtplib.SMTPException, ValueError) as error:
        raise ServerRefused(f"{server}: {_describe_error(error)}. Check MILLPOND_SMTP__*") from error
    except OSError as error:
        raise ConnectionBroken(f"{server}: {error or type(error).__name__}") from error
    return client


def _open_client(settings: Smtp) -> smtplib.SMTP:
    """Return a connection after the server's greeting. With `tls`, it is encrypted from the first byte."""
    if settings.security == "tls":
        return Utf8LoginTls(
            settings.host,
            settings.port,
            timeout=settings.timeout_seconds,
            context=_make_tls_context(settings),
        )
    return Utf8Login(settings.host, settings.port, timeout=settings.timeout_seconds)


def _encrypt_and_log_in(client: smtplib.SMTP, settings: Smtp) -> None:
    """Encrypt the connection with STARTTLS, and log in, as the settings require. Close it on an error."""
    try:
        client.ehlo_or_helo_if_needed()
        if settings.security == "starttls":
            client.starttls(context=_make_tls_context(settings))
            client.ehlo_or_helo_if_needed()
        if settings.username is not None and settings.password is not None:
            client.login(settings.username, settings.password.get_secret_value())
    except BaseException:  # a time limit, too
        client.close()
        raise


def _make_tls_context(settings: Smtp) -> ssl.SSLContext:
    """Return a TLS context that verifies the server's certificate and its name. Raises `SettingsError`."""
    if settings.ca_file is not None and not settings.ca_file.is_file():
        raise SettingsError(f"MILLPOND_SMTP__CA_FILE names {settings.ca_file}, which is not a file")
    return ssl.create_default_context(cafile=settings.ca_file)


def submit_message(
    client: smtplib.SMTP, envelope: Envelope, recipients: Sequence[str], *, before_data: Callable[[], None]
) -> SmtpResult:
    """Submit a message for `recipients`, and return the server's replies.

    `before_data` is called before the message itself is sent, if a recipient was accepted. Raises
    `ConnectionBroken`, and `RetryLater` or `FinalError` if the server refuses the whole message.
    """
    data_sent = False
    try:
        options = _choose_mail_options(client, envelope)
        _check_reply(*client.mail(envelope.sender, options), f"the sender {envelope.sender}")
        result = _send_recipients(client, recipients)
        if not result.accepted:
            client.rset()
            return result
        before_data()
        data_sent = True
        _check_reply(*client.data(envelope.payload), "the message")
        return result
    except smtplib.SMTPDataError as error:  # the command DATA was refused, so the message was not sent
        _check_reply(error.smtp_code, error.smtp_error, "the message")
        raise ConnectionBroken(f"the SMTP server answered DATA with {error.smtp_code}") from error
    except (OSError, smtplib.SMTPException) as error:
        doubt = ", after the message was sent: it may arrive twice" if data_sent else ""
        raise ConnectionBroken(
            f"the SMTP connection broke{doubt} ({_describe_error(error)})", data_sent=data_sent
        ) from error


def _choose_mail_options(client: smtplib.SMTP, envelope: Envelope) -> list[str]:
    """Return the options of the MAIL command. Raises `FinalError` if the server lacks a needed SMTPUTF8."""
    options = [f"size={len(envelope.payload)}"] if client.has_extn("size") else []
    if envelope.needs_smtputf8:
        if not client.has_extn("smtputf8"):
            raise FinalError(
                "an address has letters outside ASCII before its @, and the SMTP server does not offer "
                "SMTPUTF8: use another address, or another server"
            )
        options += ["SMTPUTF8", "BODY=8BITMIME"]
    return options


def _send_recipients(client: smtplib.SMTP, recipients: Sequence[str]) -> SmtpResult:
    """Send the RCPT command of each recipient. Raises `ConnectionBroken` if the server ends the session."""
    accepted: list[str] = []
    refused: dict[str, str] = {}
    deferred: dict[str, str] = {}
    for address in recipients:
        code, text = client.rcpt(address)
        if 200 <= code < 300:
            accepted.append(address)
        elif 500 <= code < 600 and code != _TOO_MANY_RECIPIENTS:
            refused[address] = _format_reply(code, text)
        elif 400 <= code < 600 and code != 421:
            deferred[address] = _format_reply(code, text)
        else:
            raise ConnectionBroken(f"the SMTP server ended the session: {_format_reply(code, text)}")
    return SmtpResult(tuple(accepted), refused, deferred)


def _check_reply(code: int, text: bytes | str, refused_part: str) -> None:
    """Raise the error for a reply that is no success. `refused_part` is the part of the mail at fault."""
    if 200 <= code < 300:
        return
    if 500 <= code < 600:
        raise FinalError(f"the SMTP server refuses {refused_part}: {_format_reply(code, text)}")
    if 400 <= code < 500 and code != 421:
        raise RetryLater(f"the SMTP server defers {refused_part}: {_format_reply(code, text)}")
    raise ConnectionBroken(f"the SMTP server ended the session: {_format_reply(code, text)}")


def _format_reply(code: int, text: bytes | str) -> str:
    """Return a reply of the server in one line, cut to `MAX_REPLY_CHARACTERS`."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return " ".join(f"{code} {text}".split())[:MAX_REPLY_CHARACTERS]


def _describe_error(error: Exception) -> str:
    """Return the server's reply in an error, or else the text or the name of the error."""
    if isinstance(error, smtplib.SMTPResponseException):
        return _format_reply(error.smtp_code, error.smtp_error)
    return str(error) or type(error).__name__


def disconnect(client: smtplib.SMTP) -> None:
    """Send QUIT and close the connection. No error is raised.

    Nothing waits for the reply: on a connection that a firewall dropped, none comes, and a mail may wait.
    """
    with suppress(OSError, smtplib.SMTPException):
        client.putcmd("quit")
    client.close()
