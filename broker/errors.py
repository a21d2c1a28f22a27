"""Errors of the broker, one class a reason: the root of the one tree of errors.

`tasks/errors.py` has the rest of the tree. Each message is one line, as shown on the command line: the
fault, and the next step.
"""

from datetime import timedelta


class MillpondError(Exception):
    """The base of all errors that Millpond raises."""


class BrokerError(MillpondError):
    """The broker could not carry out a command."""


class BrokerAway(BrokerError):
    """The broker cannot be reached or replied too late. The last message may have been accepted."""


class NoConnectionFree(BrokerError):
    """Every connection of this client was in use for too long. Nothing was sent."""


class BadBrokerUrl(MillpondError):
    """The broker's URL cannot be used."""


class BadLimit(MillpondError, ValueError):
    """The name or the value of a queue limit is not valid. Nothing was set."""


class QueueFull(BrokerError):
    """The queue is at its bound and its overflow policy refuses messages.

    `bound` and `depth` count messages. `oldest_seconds` is the age of the oldest message.
    `retry_after_seconds` is the time, at the pool's measured drain rate, until the refused messages fit
    (None: not measured, or no message is fetched: the queue is `paused` or has no pool).
    """

    def __init__(
        self,
        queue: str,
        *,
        bound: int,
        depth: int,
        oldest_seconds: float | None = None,
        retry_after_seconds: float | None = None,
        paused: bool = False,
    ) -> None:
        age = "" if oldest_seconds is None else f", its oldest message has waited {oldest_seconds:.1f} s"
        later = "later" if retry_after_seconds is None else f"again in {max(0.1, retry_after_seconds):.1f} s"
        todo = (
            f"It is paused, and takes no more until it goes on: millpond queue resume {queue}"
            if paused
            else f"Send {later}, add slots, or raise the bound: millpond queue set {queue} --bound N"
        )
        super().__init__(f"queue {queue!r} is full: {depth} of {bound} messages{age}. {todo}")
        self.queue = queue
        self.bound = bound
        self.depth = depth
        self.oldest_seconds = oldest_seconds
        self.retry_after_seconds = retry_after_seconds
        self.paused = paused

    @property
    def retry_after(self) -> timedelta | None:
        """Return the time after which a send may succeed, or None if it is not known."""
        return None if self.retry_after_seconds is None else timedelta(seconds=self.retry_after_seconds)


class DeadlineExceeded(BrokerError):
    """A task was not accepted because it could not start by its deadline.

    `wait_seconds` is the time, at the pool's measured drain rate, until it would start.
    """

    def __init__(self, queue: str, *, wait_seconds: float) -> None:
        super().__init__(
            f"queue {queue!r} cannot meet the deadline: its pool would start it in {wait_seconds:.1f} s. "
            "Allow more time, add slots, or send it elsewhere"
        )
        self.queue = queue
        self.wait_seconds = wait_seconds


class DeadLettered(BrokerError):
    """The error that a result backend shows for a task that became a dead letter without raising an error."""


class UnknownBatch(BrokerError):
    """No batch has this id, or its record has expired."""

    def __init__(self, batch: str) -> None:
        super().__init__(f"no batch is {batch!r}: look at `millpond batches`, or its record has expired")


class BatchClosed(BrokerError):
    """The batch is closed or cancelled, and accepts no more tasks."""
