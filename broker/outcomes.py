"""Say how a delivery ended: the settlement that turn.lua carries out."""

from dataclasses import dataclass
from typing import Literal

Action = Literal["settle", "bury", "replace", "delay", "aside", "return", "redeliver", "drop"]


@dataclass(frozen=True, slots=True)
class Settlement:
    """Say how a delivery ended; scripts/turn.lua explains the actions.

    `detail` is JSON for the batch's results or the dead letter; `text` the reason of a burial, the
    message that takes this one's place, due at `due_ms`, or the kind of one that is put aside until then.
    """

    action: Action = "settle"
    state: str = "succeeded"
    detail: str = "{}"
    due_ms: int = 0
    text: str = ""


DONE = Settlement()
GIVEN_BACK = Settlement("return")
HANDED_AGAIN = Settlement("redeliver")
REJECTED = Settlement("bury", "failed", '{"error": "rejected"}', text="rejected")
CANCELLED = Settlement("drop", state="cancelled")
EXPIRED = Settlement("drop", state="expired")
