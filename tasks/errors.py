"""The errors of a task: one tree, which producers and workers share.

A handler raises `Retry…` to be run again later and `Final…` to fail for good. Any other exception is final
too, with its traceback kept in the dead letter. A message is one line that names the next step.
"""

from millpond.broker.errors import (
    BadBrokerUrl,
    BadLimit,
    BatchClosed,
    BrokerAway,
    BrokerError,
    DeadlineExceeded,
    MillpondError,
    QueueFull,
    UnknownBatch,
)


class SettingsError(MillpondError):
    """The environment or millpond.toml holds something that cannot be used."""


class StartError(MillpondError):
    """A part of Millpond could not be started."""


class BadContract(MillpondError):
    """The fields of a task do not fit the contract of its kind. Nothing was sent."""


class UnknownKind(MillpondError):
    """No kind of task has this name."""


class HandlerMissing(MillpondError):
    """The handler of a kind is not installed in the process that was to run it. Nothing was sent."""


class UnknownQueue(MillpondError):
    """No pool takes from a queue of this name. Nothing was sent."""


class TaskError(MillpondError):
    """A handler could not do its work."""


class FinalError(TaskError):
    """Trying again cannot help: the input is at fault. The message goes to the dead letters."""


class RetryLater(TaskError):
    """Another try may help: a dependency is unreachable or busy. Raised by a handler, retried with backoff.

    `after_seconds` overrides the backoff, for a dependency that names the time of the next try.
    """

    def __init__(self, message: str, *, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class BadInput(FinalError):
    """The file, message or argument that the task was given cannot be used."""


class BadQuantity(BadInput, ValueError):
    """A text is no duration, rate or bound. Pydantic reports it as a fault of the field."""


class OutsideRoots(BadInput):
    """A storage URL points outside the configured roots."""


class TooLarge(BadInput):
    """The input, or its expansion, is over a configured limit."""


class Cancelled(TaskError):
    """The task was cancelled while it ran, and its handler stopped at a checkpoint."""


__all__ = [
    "BadBrokerUrl",
    "BadContract",
    "BadInput",
    "BadLimit",
    "BadQuantity",
    "BatchClosed",
    "BrokerAway",
    "BrokerError",
    "Cancelled",
    "DeadlineExceeded",
    "FinalError",
    "HandlerMissing",
    "MillpondError",
    "OutsideRoots",
    "QueueFull",
    "RetryLater",
    "SettingsError",
    "StartError",
    "TaskError",
    "TooLarge",
    "UnknownBatch",
    "UnknownKind",
    "UnknownQueue",
]
