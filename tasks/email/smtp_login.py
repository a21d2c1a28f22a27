"""Log in with names and passwords outside ASCII, as UTF-8 (RFC 4616). The standard library refuses them."""

import smtplib
from typing import Any


class Utf8Text(str):
    """A text that is encoded as UTF-8, also if the standard library encodes it as ASCII."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002
        """Return the text as UTF-8. `encoding` is ignored."""
        return super().encode("utf-8", errors)


class Utf8Login(smtplib.SMTP):
    """An SMTP connection that can log in with any name and password."""

    def login(self, user: str, password: str, *, initial_response_ok: bool = True) -> tuple[int, bytes]:
        """Log in with the best mechanism that the server offers. Return its reply."""
        return super().login(Utf8Text(user), Utf8Text(password), initial_response_ok=initial_response_ok)

    def auth_plain(self, challenge: Any = None) -> str:
        """Return the response of the mechanism PLAIN."""
        return Utf8Text(super().auth_plain(challenge))

    def auth_cram_md5(self, challenge: Any = None) -> Any:
        """Return the response of the mechanism CRAM-MD5."""
        response = super().auth_cram_md5(challenge)
        return None if response is None else Utf8Text(response)


class Utf8LoginTls(Utf8Login, smtplib.SMTP_SSL):
    """An SMTP connection that can log in with any name and password, over TLS from the first byte."""
