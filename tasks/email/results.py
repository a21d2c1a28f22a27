"""The results of the mail tasks."""

from pydantic import BaseModel, ConfigDict


class Receipt(BaseModel):
    """The addresses for which the mail server accepted a message, and those that it refused for good.

    `refused` has the server's reply for each address. `duplicate` is True if an earlier delivery of the task
    has sent the message, so that this one sent nothing.
    """

    model_config = ConfigDict(frozen=True)

    message_id: str
    accepted: tuple[str, ...]
    refused: dict[str, str] = {}
    duplicate: bool = False


class CampaignStep(BaseModel):
    """The result of one run of a campaign: its first row, and the numbers of messages sent and rows skipped.

    `reasons` says why the first of these rows were skipped. `next_row` is the first row of the next run; None
    at the end of the file. `duplicate` is True if an earlier delivery of the task has sent these messages.
    """

    model_config = ConfigDict(frozen=True)

    campaign: str
    first_row: int
    sent: int
    skipped: int = 0
    reasons: tuple[str, ...] = ()
    next_row: int | None = None
    duplicate: bool = False
