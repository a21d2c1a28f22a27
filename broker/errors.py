"""Name what the broker refuses, one class a reason.

The root of the one tree of errors; `tasks/errors.py` grows the rest of it. A message says what happened and
what to do next, in one line, for it is what a person reads on the command line.
"""

from datetime import timedelta


class MillpondError(Exception):
    """Everything that Millpond raises on purpose."""


class BrokerError(MillpondError):
    """The broker could not do what was asked."""


class BrokerAway(BrokerError):
    """The broker cannot be reached, or answered too late; whether the last message was taken is not known."""


class BadBrokerUrl(MillpondError):
    """The broker's URL cannot be used."""


class BadLimit(MillpondError, ValueError):
    """No limit of a queue has this name, or could have this value; nothing was set."""


class QueueFull(BrokerError):
    """A queue is at its bound and its policy is to refuse.

    `queue` names it, `bound` and `depth` count messages, `oldest_seconds` is the age of its oldest message
    and `retry_after_seconds` how long the pool needs, at its measured rate, until there is room for what was
    refused (None: not measured).
    """

    def __init__(
        self,
        queue: str,
        *,
        bound: int,
        depth: int,
        oldest_seconds: float | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        age = "" if oldest_seconds is None else f", its oldest message waits for {oldest_seconds:.1f} s"
        later = "later" if retry_after_seconds is None else f"again in {max(0.1, retry_after_seconds):.1f} s"
        super().__init__(
            f"queue {queue!r} is full: {depth} of {bound} messages{age}. "
            f"Send {later}, add slots, or raise the bound: millpond queue set {queue} --bound N"
        )
        self.queue = queue
        self.bound = bound
        self.depth = depth
        self.oldest_seconds = oldest_seconds
        self.retry_after_seconds = retry_after_seconds

    @property
    def retry_after(self) -> timedelta | None:
        """Return when to send again."""
        return None if self.retry_after_seconds is None else timedelta(seconds=self.retry_after_seconds)


class DeadlineExceeded(BrokerError):
    """A task could not start by its deadline, so it was not taken.

    `wait_seconds` is what the pool needs, at its measured rate, for all that is before it in `queue`.
    """

    def __init__(self, queue: str, *, wait_seconds: float) -> None:
        super().__init__(
            f"queue {queue!r} cannot meet the deadline: its pool gets to the task in {wait_seconds:.1f} s. "
            "Allow more time, add slots, or send it elsewhere"
        )
        self.queue = queue
        self.wait_seconds = wait_seconds


class UnknownBatch(BrokerError):
    """No batch has this id, or its record has expired."""


class BatchClosed(BrokerError):
    """A closed or cancelled batch takes nothing more."""
