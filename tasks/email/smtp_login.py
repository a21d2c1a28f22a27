"""Logins outside ASCII: names and passwords as UTF-8 (RFC 4616). The standard library refuses them."""

import smtplib
from typing import Any


class Utf8(str):
    """A text that the library's `encode("ascii")` turns into UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002
        """Return the text as UTF-8."""
        return super().encode("utf-8", errors)


class Utf8Login(smtplib.SMTP):
    """A connection that logs in with any name and password."""

    def login(self, user: str, password: str, *, initial_response_ok: bool = True) -> tuple[int, bytes]:
        """Log in by the best mechanism of the server."""
        return super().login(Utf8(user), Utf8(password), initial_response_ok=initial_response_ok)

    def auth_plain(self, challenge: Any = None) -> str:
        """Return the response of the mechanism PLAIN."""
        return Utf8(super().auth_plain(challenge))

    def auth_cram_md5(self, challenge: Any = None) -> Any:
        """Return the response of the mechanism CRAM-MD5."""
        answer = super().auth_cram_md5(challenge)
        return None if answer is None else Utf8(answer)


class Utf8LoginTls(Utf8Login, smtplib.SMTP_SSL):
    """The same over TLS from the first byte."""
