"""The handlers of mail. They use the settings, the mail server and the ledger of the process."""

from millpond.broker.connection import connect
from millpond.tasks.context import Context
from millpond.tasks.email.campaign_chunk import send_chunk
from millpond.tasks.email.contract import SendCampaign, SendEmail
from millpond.tasks.email.ledger import MailLedger
from millpond.tasks.email.mailer import Mailer
from millpond.tasks.email.outbox import require_outbox
from millpond.tasks.email.results import CampaignStep, Receipt
from millpond.tasks.email.smtp_connections import SmtpConnections
from millpond.tasks.errors import SettingsError
from millpond.tasks.files.storage import storage
from millpond.tasks.handlers import handler
from millpond.tasks.process.one_per_process import one_per_process
from millpond.tasks.settings import Settings, settings

_DAY_SECONDS = 24 * 3600


# Mail servers defer unknown senders for minutes (greylisting); these retries last for about an hour.
@handler(SendEmail, retries=10, backoff_seconds=5, backoff_limit_seconds=1800)
def send_email(job: SendEmail, context: Context) -> Receipt:
    """Send one message to all its recipients."""
    return _shared_mailer(settings()).send(job, context.id)


@handler(SendCampaign, retries=10, backoff_seconds=2, backoff_limit_seconds=300)
def send_campaign(job: SendCampaign, context: Context) -> CampaignStep:
    """Send a task for each mail in a chunk of a campaign, and then the continuation for the next chunk."""
    context.checkpoint()
    mailer = _shared_mailer(settings())
    return send_chunk(
        job,
        context,
        outbox=require_outbox(context),
        ledger=mailer.ledger,
        open_input=mailer.open_input,
        templates=mailer.settings.templates,
    )


@one_per_process
def _shared_mailer(configured: Settings) -> Mailer:
    """Return the mailer that all slots of this process share. Raises `SettingsError` without a broker."""
    if configured.broker_url is None:
        raise SettingsError("a mail needs the mail ledger in the broker: set MILLPOND_BROKER_URL")
    store = connect(configured.broker_url, **configured.broker_options)
    ledger = MailLedger(store, configured.smtp.ledger_days * _DAY_SECONDS)
    return Mailer(configured.smtp, SmtpConnections(configured.smtp), ledger, storage().open_input)
