"""A mail server on loopback for the length of a `with` block; it counts the mails that arrive."""

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
    """Count the mails that arrived: how often for each address, and how many bytes in all."""

    port: int
    refused: str
    arrived: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        """Refuse the one address that is nobody's."""
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
def mailbox(*, refused: str) -> Iterator[Mailbox]:
    """Serve a mailbox that takes mail for everybody but `refused`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        box = Mailbox(free.getsockname()[1], refused)
    controller = Controller(box, hostname="127.0.0.1", port=box.port, enable_SMTPUTF8=True)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()
