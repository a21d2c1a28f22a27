"""Send what the mail commands ask for: one mail, or the rows of a CSV as a stream of mails."""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from millpond.producer.cli.batch_runner import Job, LeftOut, run
from millpond.producer.cli.client_session import Session, Surroundings, session
from millpond.producer.cli.counters import Count
from millpond.producer.cli.inputs import Inputs
from millpond.producer.cli.output import Output
from millpond.producer.message import Message, contract_from
from millpond.tasks.email.campaign import BadRow, CampaignMail, mails_and_faults
from millpond.tasks.email.contract import SendCampaign, SendEmail
from millpond.tasks.errors import BadInput, SettingsError
from millpond.tasks.files.contract import file_url
from millpond.tasks.settings import settings


def mail_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that both kinds of mail have, from the parameters of a command. Raises `BadInput`."""
    text, text_file, html_file = given["text"], given["text_file"], given["html_file"]
    if text is not None and text_file is not None:
        raise BadInput("--text and --text-file both give the plain text: leave one out")
    return {
        "sender": given["sender"],
        "subject": given["subject"],
        "text": text if text_file is None else _read(text_file),
        "html": None if html_file is None else _read(html_file),
        "template": given["template"],
        "reply_to": tuple(given["reply_to"] or ()),
        "attachments": tuple(map(_attachment, given["attach"] or ())),
        "headers": dict(map(_header, given["header"] or ())),
    }


def context_from(text: str | None) -> dict[str, Any] | None:
    """Return the context that a JSON object on the command line gives."""
    if text is None:
        return None
    try:
        context = json.loads(text)
    except ValueError as error:
        raise BadInput(f"--context is no JSON: {error}") from None
    if not isinstance(context, dict):
        raise BadInput('--context must be a JSON object: {"name": "Ann"}')
    return context


def send_mail(
    surroundings: Surroundings | None, fields: dict[str, Any], *, queue: str | None, as_json: bool
) -> int:
    """Send one mail and return the exit code."""
    mail = contract_from((SendEmail.kind, fields))
    assert isinstance(mail, SendEmail)
    label = ", ".join(mail.recipients)
    output = Output(as_json=as_json, line=lambda _label, receipt: _in_words(receipt))
    with session(surroundings, queue=queue or mail.queue, roots=_roots(mail.attachments)) as opened:
        _require_server(opened)
        return run(opened, [Job(label, Message(mail, queue=queue))], what="mail", output=output)


def send_campaign(
    surroundings: Surroundings | None,
    file: str,
    fields: dict[str, Any],
    *,
    name: str | None,
    queue: str | None,
    as_json: bool,
) -> int:
    """Send one mail for each row of the file and return the exit code; the file is read as mails go out."""
    campaign = contract_from((SendCampaign.kind, {**fields, "source": file}))
    assert isinstance(campaign, SendCampaign)
    with Path(file).open("rb") as stream:
        mails = _Mails(campaign, stream, name or str(uuid4()), queue)
        mails.check()
        with session(
            surroundings, queue=queue or campaign.queue, roots=_roots(campaign.attachments)
        ) as opened:
            _require_server(opened)
            return run(opened, mails, what="mails", output=Output(as_json=as_json), foresee=mails.foresee)


def _require_server(opened: Session) -> None:
    """Refuse to begin where workers of this command's own would find no mail server, and try for an hour."""
    server = settings().smtp
    if opened.is_embedded:
        try:
            socket.create_connection((server.host, server.port), timeout=server.timeout_seconds).close()
        except OSError as error:
            raise SettingsError(
                f"no mail server answers at {server.host}:{server.port} ({error}): name yours in "
                "MILLPOND_SMTP__HOST and MILLPOND_SMTP__PORT, or in [smtp] of millpond.toml"
            ) from None


class _Mails:
    """Iterate over the mails of a campaign; the place in the file tells how many will come."""

    def __init__(self, campaign: SendCampaign, stream: BinaryIO, name: str, queue: str | None) -> None:
        self._campaign = campaign
        self._stream = stream
        self._name = name
        self._queue = queue
        self._size = os.fstat(stream.fileno()).st_size
        self._rows = self._read_bytes = 0

    def check(self) -> None:
        """Refuse a file that no mail can be made of, before a worker is started. Raises `BadInput`."""
        first = next(self._read(), None)
        if first is None:
            raise BadInput(
                f"{self._campaign.source} has no row behind its header: there is nobody to write to"
            )
        self._stream.seek(0)

    def __iter__(self) -> Iterator[Job | LeftOut]:
        for each in self._read():
            self._rows, self._read_bytes = self._rows + 1, each.after.offset
            if isinstance(each, BadRow):
                yield LeftOut(f"{self._campaign.source}, line {each.line}", each.reason)
            else:
                yield Job(each.job.to[0], Message(each.job, id=each.id, queue=self._queue))

    def _read(self) -> Iterator[CampaignMail | BadRow]:
        return mails_and_faults(self._campaign, self._stream, campaign_id=self._name)

    def foresee(self, count: Count) -> int | None:
        """Estimate how many mails there will be from the share of the file that is read."""
        if not self._read_bytes:
            return None
        return max(count.sent + count.left_out, round(self._rows * self._size / self._read_bytes))


def _in_words(value: Any) -> str:
    refused = "".join(f"\nrefused {address}: {words}" for address, words in value["refused"].items())
    return f"sent to {', '.join(value['accepted']) or 'nobody'} as {value['message_id']}{refused}"


def _read(file: str) -> str:
    raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 (byte {error.start}): convert it") from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise BadInput(f"--header {text!r} has no colon: give 'NAME: VALUE'")
    return name.strip(), value.strip()


def _attachment(place: str) -> str:
    if "://" in place:
        return place
    if not Path(place).is_file():
        raise BadInput(f"{place}: there is no such file; attach one that exists")
    return file_url(place)


def _roots(attachments: Sequence[Any]) -> list[str]:
    return Inputs([attachment.url for attachment in attachments]).roots()
