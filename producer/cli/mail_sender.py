"""Send the mails of the mail commands: one mail, or one for each row of a CSV."""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from millpond.producer.cli.batch_runner import LabelledMessage, Skipped, run_batch
from millpond.producer.cli.client_session import Session, StartWorkers, open_session
from millpond.producer.cli.counters import Counters
from millpond.producer.cli.inputs import Inputs
from millpond.producer.cli.output import Output
from millpond.producer.message import Message, contract_from
from millpond.tasks.email.campaign import BadRow, CampaignMail, read_mails
from millpond.tasks.email.contract import SendCampaign, SendEmail
from millpond.tasks.errors import BadInput, SettingsError
from millpond.tasks.files.contract import file_url
from millpond.tasks.settings import settings


def read_mail_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a mail and a campaign share, from the parameters of their command.

    Reads the files of the text and the HTML. Raises `BadInput`.
    """
    text, text_file, html_file = options["text"], options["text_file"], options["html_file"]
    if text is not None and text_file is not None:
        raise BadInput("--text and --text-file both give the plain text: leave one out")
    return {
        "sender": options["sender"],
        "subject": options["subject"],
        "text": text if text_file is None else _read_text(text_file),
        "html": None if html_file is None else _read_text(html_file),
        "template": options["template"],
        "reply_to": tuple(options["reply_to"] or ()),
        "attachments": tuple(map(_attachment_url, options["attach"] or ())),
        "headers": dict(map(_parse_header, options["header"] or ())),
    }


def parse_context(text: str | None) -> dict[str, Any] | None:
    """Return the variables of a mail's templates, which `--context` gives as a JSON object; None for None.

    Raises `BadInput`.
    """
    if text is None:
        return None
    try:
        context = json.loads(text)
    except ValueError as error:
        raise BadInput(f"--context is not JSON: {error}") from None
    if not isinstance(context, dict):
        raise BadInput('--context must be a JSON object: {"name": "Ann"}')
    return context


def send_mail(
    start_workers: StartWorkers, fields: dict[str, Any], *, queue: str | None, as_json: bool
) -> int:
    """Send one mail, wait for its result, and return the exit code."""
    mail = contract_from((SendEmail.kind, fields))
    assert isinstance(mail, SendEmail)
    label = ", ".join(mail.recipients)
    output = Output(as_json=as_json, format_line=lambda _label, receipt: _describe_receipt(receipt))
    with open_session(
        start_workers, queue=queue or mail.queue, roots=_attachment_roots(mail.attachments)
    ) as session:
        _require_mail_server(session)
        message = LabelledMessage(label, Message(mail, queue=queue))
        return run_batch(session, [message], title="mail", output=output)


def send_campaign(
    start_workers: StartWorkers,
    file: str,
    fields: dict[str, Any],
    *,
    name: str | None,
    queue: str | None,
    as_json: bool,
) -> int:
    """Send one mail for each row of a CSV, wait for the results, and return the exit code.

    The first rows are checked before anything is sent. The others are read as mails are sent.
    """
    campaign = contract_from((SendCampaign.kind, {**fields, "source": file}))
    assert isinstance(campaign, SendCampaign)
    with Path(file).open("rb") as stream:
        mails = _CampaignMails(campaign, stream, name or str(uuid4()), queue)
        mails.check_first_rows()
        with open_session(
            start_workers, queue=queue or campaign.queue, roots=_attachment_roots(campaign.attachments)
        ) as session:
            _require_mail_server(session)
            return run_batch(
                session,
                mails,
                title="mails",
                output=Output(as_json=as_json),
                estimate_total=mails.estimate_total,
            )


def _require_mail_server(session: Session) -> None:
    """Raise `SettingsError` if the command starts its own workers and no mail server accepts a connection.

    These workers would retry for an hour.
    """
    server = settings().smtp
    if session.is_embedded:
        try:
            socket.create_connection((server.host, server.port), timeout=server.timeout_seconds).close()
        except OSError as error:
            raise SettingsError(
                f"no mail server answers at {server.host}:{server.port} ({error}): name yours in "
                "MILLPOND_SMTP__HOST and MILLPOND_SMTP__PORT, or in [smtp] of millpond.toml"
            ) from None


#: The number of rows that are checked before any mail is sent.
CHECKED_ROWS = 3


class _CampaignMails:
    """The mails of a campaign, for the rows of a CSV. An iteration reads the file once."""

    def __init__(self, campaign: SendCampaign, stream: BinaryIO, name: str, queue: str | None) -> None:
        self._campaign = campaign
        self._stream = stream
        self._name = name
        self._queue = queue
        self._size = os.fstat(stream.fileno()).st_size
        #: The number of rows, and of bytes of the file, that were read so far.
        self._rows = self._bytes = 0

    def check_first_rows(self) -> None:
        """Raise `BadInput` for a file without a row, and for a template that fails for a first row."""
        first = list(islice(self._read_mails(), CHECKED_ROWS))
        if not first:
            raise BadInput(f"{self._campaign.source} has no row after its header: add at least one recipient")
        with suppress(ModuleNotFoundError):  # a host without workers may have no template engine
            from millpond.tasks.email.templates import check_templates

            folder = settings().smtp.templates
            if folder is not None or self._campaign.template is None:
                mails = [mail.job for mail in first if isinstance(mail, CampaignMail)]
                check_templates(mails, folder=folder)
        self._stream.seek(0)

    def __iter__(self) -> Iterator[LabelledMessage | Skipped]:
        """Yield the mail of each row, or the reason why a row has none."""
        for mail in self._read_mails():
            self._rows, self._bytes = self._rows + 1, mail.after.offset
            if isinstance(mail, BadRow):
                yield Skipped(f"{self._campaign.source}, line {mail.line}", mail.reason)
            else:
                yield LabelledMessage(mail.job.to[0], Message(mail.job, id=mail.id, queue=self._queue))

    def _read_mails(self) -> Iterator[CampaignMail | BadRow]:
        return read_mails(self._campaign, self._stream, campaign_id=self._name)

    def estimate_total(self, counters: Counters) -> int | None:
        """Return the expected number of mails, by the part of the file that was read. None before a row."""
        if not self._bytes:
            return None
        return max(counters.sent + counters.skipped, round(self._rows * self._size / self._bytes))


def _describe_receipt(receipt: Any) -> str:
    """Return the result of a mail for people: its recipients and id, and a line for each that was refused."""
    refused = "".join(f"\nrefused {address}: {reason}" for address, reason in receipt["refused"].items())
    return f"sent to {', '.join(receipt['accepted']) or 'no address'} as {receipt['message_id']}{refused}"


def _read_text(file: str) -> str:
    """Return the text of a file, or of stdin for "-". Raises `BadInput` if it is not UTF-8."""
    raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 (byte {error.start}): convert it") from None


def _parse_header(text: str) -> tuple[str, str]:
    """Return the name and the value of a `--header 'NAME: VALUE'`. Raises `BadInput`."""
    name, colon, value = text.partition(":")
    if not colon:
        raise BadInput(f"--header {text!r} has no colon: give 'NAME: VALUE'")
    return name.strip(), value.strip()


def _attachment_url(path: str) -> str:
    """Return the URL of an attachment, given as a URL or a path. Raises `BadInput` for a missing file."""
    if "://" in path:
        return path
    if not Path(path).is_file():
        raise BadInput(f"{path}: there is no such file; attach one that exists")
    return file_url(path)


def _attachment_roots(attachments: Sequence[Any]) -> list[str]:
    """Return the folders that workers must be allowed to read for these attachments."""
    return Inputs([attachment.url for attachment in attachments]).root_folders()
