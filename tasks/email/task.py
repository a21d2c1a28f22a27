"""The handlers of mail, wired to the settings, the mail server and the ledger."""

import os
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import BinaryIO

from millpond.broker.connection import connect
from millpond.tasks.context import Context
from millpond.tasks.email.contract import SendCampaign, SendEmail
from millpond.tasks.email.delivery import Mailer
from millpond.tasks.email.fanout import send_chunk
from millpond.tasks.email.ledger import MailLedger
from millpond.tasks.email.outbox import outbox_of
from millpond.tasks.email.receipt import CampaignStep, Receipt
from millpond.tasks.email.smtp_connections import connections_for
from millpond.tasks.errors import SettingsError
from millpond.tasks.files.storage import storage
from millpond.tasks.handlers import body
from millpond.tasks.settings import settings

SECONDS_A_DAY = 24 * 3600


# Mail servers defer unknown senders for minutes (greylisting); these retries last for about an hour.
@body(SendEmail, retries=10, backoff_seconds=5, backoff_limit_seconds=1800)
def send_email(job: SendEmail, context: Context) -> Receipt:
    """Send one message, once, to all its recipients."""
    return _mailer_of_process(os.getpid()).send(job, context.id)


@body(SendCampaign, retries=10, backoff_seconds=2, backoff_limit_seconds=300)
def send_campaign(job: SendCampaign, context: Context) -> CampaignStep:
    """Send a chunk of a campaign, one task a row, and then the task that sends the next chunk."""
    context.checkpoint()
    mailer = _mailer_of_process(os.getpid())
    return send_chunk(
        job,
        context,
        outbox=outbox_of(context),
        ledger=mailer.ledger,
        open_input=_open_input,
        templates=mailer.settings.templates,
    )


@lru_cache(maxsize=1)
def _mailer_of_process(_process: int) -> Mailer:
    """Return the mailer of this process. A forked child makes its own."""
    here = settings()
    if here.broker_url is None:
        raise SettingsError("a mail needs the mail ledger in the broker: set MILLPOND_BROKER_URL")
    store = connect(here.broker_url, **here.broker_options)
    ledger = MailLedger(store, here.smtp.ledger_days * SECONDS_A_DAY)
    return Mailer(here.smtp, connections_for(here.smtp), ledger, _open_input)


def _open_input(url: str) -> AbstractContextManager[BinaryIO]:
    return storage().open_input(url)
