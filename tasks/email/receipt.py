"""Describe what the mail tasks give back."""

from pydantic import BaseModel, ConfigDict


class Receipt(BaseModel):
    """Say who the server took a message for.

    `refused` holds the server's own words for each address it will never take; `duplicate` is true if an
    earlier delivery of the same task sent the message, and this one sent nothing.
    """

    model_config = ConfigDict(frozen=True)

    message_id: str
    accepted: tuple[str, ...]
    refused: dict[str, str] = {}
    duplicate: bool = False


class CampaignStep(BaseModel):
    """Say what one run of a campaign did: messages sent on, rows left out and why, where the next run begins.

    `next_row` is None when the file is at its end; `reasons` names the first rows that were left out.
    """

    model_config = ConfigDict(frozen=True)

    campaign: str
    first_row: int
    sent: int
    left_out: int = 0
    reasons: tuple[str, ...] = ()
    next_row: int | None = None
    duplicate: bool = False
