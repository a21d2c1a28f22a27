"""The results of the mail tasks."""

from pydantic import BaseModel, ConfigDict


class Receipt(BaseModel):
    """The addresses for which the mail server accepted a message, and those that it refused.

    `refused` has the server's reply for each address that it refuses for good. `duplicate` is True if an
    earlier delivery of the same task sent the message, and this one sent nothing.
    """

    model_config = ConfigDict(frozen=True)

    message_id: str
    accepted: tuple[str, ...]
    refused: dict[str, str] = {}
    duplicate: bool = False


class CampaignStep(BaseModel):
    """One run of a campaign: messages sent, rows skipped and why, and the row at which the next run begins.

    `next_row` is None at the end of the file. `reasons` has the first of the skipped rows.
    """

    model_config = ConfigDict(frozen=True)

    campaign: str
    first_row: int
    sent: int
    skipped: int = 0
    reasons: tuple[str, ...] = ()
    next_row: int | None = None
    duplicate: bool = False
