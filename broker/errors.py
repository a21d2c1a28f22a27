"""Name what the broker refuses, one class a reason.

The root of the one tree of errors; `tasks/errors.py` grows the rest of it. A message says what happened and
what to do next, in one line, for it is what a person reads on the command line.
"""


class MillpondError(Exception):
    """Everything that Millpond raises on purpose."""


class BrokerError(MillpondError):
    """The broker could not do what was asked."""


class BrokerAway(BrokerError):
    """The broker cannot be reached, or answered too late; whether the last message was taken is not known."""


class BadBrokerUrl(MillpondError):
    """The broker's URL cannot be used."""


class QueueFull(BrokerError):
    """A queue is at its bound and its policy is to refuse.

    `queue` names it, `bound` and `depth` count messages, `oldest_seconds` is the age of its oldest message
    and `retry_after` how long it takes, at the measured rate, until there is room (None: not known).
    """

    def __init__(
        self,
        queue: str,
        *,
        bound: int,
        depth: int,
        oldest_seconds: float | None = None,
        retry_after: float | None = None,
    ) -> None:
        age = "" if oldest_seconds is None else f", its oldest message waits for {oldest_seconds:.1f} s"
        super().__init__(
            f"queue {queue!r} is full: {depth} of {bound} messages{age}. "
            f"Send later, add slots, or raise the bound: millpond queue set {queue} --bound N"
        )
        self.queue = queue
        self.bound = bound
        self.depth = depth
        self.oldest_seconds = oldest_seconds
        self.retry_after = retry_after


class UnknownBatch(BrokerError):
    """No batch has this id, or its record has expired."""


class BatchClosed(BrokerError):
    """A closed or cancelled batch takes nothing more."""
