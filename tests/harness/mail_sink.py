"""Run an SMTP server on loopback that replies as a test tells it, and keeps the mails that it accepted."""

import asyncio
import ssl
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

from tests.harness.own_server import free_port


@dataclass
class Taken:
    """One mail as the server received it."""

    sender: str
    recipients: list[str]
    payload: bytes


@dataclass
class Sink:
    """The accepted mails, and the replies to come. A handler of aiosmtpd.

    `answers` has the next replies to a command (`MAIL`, `RSET`, `DATA`, `354`) or to an address in `RCPT`.
    `abort` closes the connection in place of a reply, and `hang` waits for ever. `before_answer` is called
    before the reply to `DATA`.
    """

    taken: list[Taken] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    peers: set[Any] = field(default_factory=set)
    commands: list[str] = field(default_factory=list)
    port: int = 0
    before_answer: Any = None

    async def _answer(self, server: SMTP, what: str, default: str = "250 OK") -> str:
        self.commands.append(what)
        answer = self.answers[what].pop(0) if self.answers[what] else default
        if answer == "abort":
            server.transport.abort()
        if answer == "hang":
            await asyncio.Event().wait()
        return answer

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        self.peers.add(session.peer)
        session.host_name = hostname
        return responses

    async def handle_MAIL(self, server, session, envelope, address, options):
        answer = await self._answer(server, "MAIL")
        if answer.startswith("250"):
            envelope.mail_from = address
        return answer

    async def handle_RCPT(self, server, session, envelope, address, options):
        answer = await self._answer(server, address)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_RSET(self, server, session, envelope):
        return await self._answer(server, "RSET")

    async def handle_DATA(self, server, session, envelope):
        if self.before_answer is not None:
            self.before_answer()
        answer = await self._answer(server, "DATA")
        if answer.startswith("250") or answer == "abort":
            self.taken.append(Taken(envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return answer


class _Server(SMTP):
    """An SMTP server that can refuse `DATA`, or close the connection in the middle of a mail."""

    async def smtp_DATA(self, arg: str) -> None:
        if self.event_handler.answers["354"]:
            answer = self.event_handler.answers["354"].pop(0)
            if answer != "abort":
                await self.push(answer)
                return
            await self.push("354 go on")
            self.transport.abort()
            return
        await super().smtp_DATA(arg)


class _Controller(Controller):
    def factory(self) -> SMTP:
        return _Server(self.handler, **self.SMTP_kwargs)


def _login(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"ann", b"secret"), handled=False)


@contextmanager
def mail_sink(*, tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None, **options: Any):
    """Serve a sink for the length of a `with` block."""
    sink = Sink(port=free_port())
    controller = _Controller(
        sink,
        hostname="127.0.0.1",
        port=sink.port,
        ssl_context=tls,
        tls_context=starttls,
        require_starttls=starttls is not None,
        authenticator=options.pop("authenticator", _login),
        **{"auth_require_tls": False, "enable_SMTPUTF8": True, **options},
    )
    controller.start()
    try:
        sink.peers.clear()
        yield sink
    finally:
        controller.stop()
