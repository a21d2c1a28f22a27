"""A mail server on loopback, during a `with` block, that counts the mails that arrive."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass
class Mailbox:
    """The mails that arrived: their number by address, and their bytes in all. A handler of aiosmtpd."""

    port: int
    refused: str
    arrived: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        """Refuse the address `refused`, and accept any other."""
        if address == self.refused:
            return "550 5.1.1 nobody of this name lives here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Count a mail for each of its recipients."""
        self.arrived.update(envelope.rcpt_tos)
        self.bytes += len(envelope.content or b"")
        return "250 OK"


@contextmanager
def serve_mailbox(*, refused: str) -> Iterator[Mailbox]:
    """Serve a mailbox on a free port. It accepts mail for every address but `refused`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        mailbox = Mailbox(free.getsockname()[1], refused)
    controller = Controller(mailbox, hostname="127.0.0.1", port=mailbox.port, enable_SMTPUTF8=True)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
