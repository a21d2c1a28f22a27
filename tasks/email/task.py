"""Send mail, one message or a campaign: wires the bodies to settings, mail server and ledger."""

import os
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import BinaryIO

from millpond.broker.connection import connect
from millpond.tasks.context import Context
from millpond.tasks.email.contract import SendCampaign, SendEmail
from millpond.tasks.email.delivery import Post
from millpond.tasks.email.fanout import send_piece
from millpond.tasks.email.ledger import MailLedger
from millpond.tasks.email.outbox import outbox_of
from millpond.tasks.email.receipt import CampaignStep, Receipt
from millpond.tasks.email.smtp import shelf_for
from millpond.tasks.errors import SettingsError
from millpond.tasks.files.storage import storage
from millpond.tasks.handlers import body
from millpond.tasks.settings import settings

SECONDS_A_DAY = 24 * 3600


# Mail servers put unknown senders off for minutes (greylisting); these waits go on for about an hour.
@body(SendEmail, retries=10, backoff_seconds=5, backoff_limit_seconds=1800)
def send_email(job: SendEmail, context: Context) -> Receipt:
    """Send one message, once, to everyone it names."""
    return _post(os.getpid()).deliver(job, context.id)


@body(SendCampaign, retries=10, backoff_seconds=2, backoff_limit_seconds=300)
def send_campaign(job: SendCampaign, context: Context) -> CampaignStep:
    """Send a piece of a campaign to its queue, one message a row, and come back for the rest."""
    context.checkpoint()
    return send_piece(
        job, context, outbox=outbox_of(context), ledger=_post(os.getpid()).ledger, open_input=_open_input
    )


@lru_cache(maxsize=1)
def _post(_process: int) -> Post:
    """Make what the deliveries of this process share; a child of a fork makes its own."""
    here = settings()
    if here.broker_url is None:
        raise SettingsError("a mail needs the ledger, which is in the broker: set MILLPOND_BROKER_URL")
    store = connect(here.broker_url, prefix=here.key_prefix, timeout_seconds=here.broker_timeout_seconds)
    ledger = MailLedger(store, here.smtp.ledger_days * SECONDS_A_DAY)
    return Post(here.smtp, shelf_for(here.smtp), ledger, _open_input)


def _open_input(url: str) -> AbstractContextManager[BinaryIO]:
    return storage().open_input(url)
