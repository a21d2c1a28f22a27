"""Say what became of a message that was sent: the values that the client gives back."""

from dataclasses import dataclass

from broker.errors import BatchClosed, QueueFull


@dataclass(frozen=True, slots=True)
class Sent:
    """The message is on its queue, or an earlier one holds its claim and goes by `duplicate_of`.

    Then it was not taken.
    """

    id: str
    queue: str
    duplicate_of: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The message was not taken and left nothing behind; `error` says why and what to do."""

    id: str
    queue: str
    error: QueueFull | BatchClosed


@dataclass(frozen=True, slots=True)
class Tally:
    """Count what a stream of messages came to: those taken, and those whose claim an earlier task holds."""

    taken: int = 0
    duplicates: int = 0
