"""The errors of a task: one tree, which producers and workers share.

A handler raises `RetryLater` to be run again, and `FinalError` to fail for good. Any other exception is
final, too; the dead letter has its traceback. The text of an error is one line that names the next step.
"""

from millpond.broker.errors import BadBrokerUrl as BadBrokerUrl
from millpond.broker.errors import BadLimit as BadLimit
from millpond.broker.errors import BatchClosed as BatchClosed
from millpond.broker.errors import BrokerAway as BrokerAway
from millpond.broker.errors import BrokerError as BrokerError
from millpond.broker.errors import DeadlineExceeded as DeadlineExceeded
from millpond.broker.errors import MillpondError as MillpondError
from millpond.broker.errors import QueueFull as QueueFull
from millpond.broker.errors import UnknownBatch as UnknownBatch


class SettingsError(MillpondError):
    """A value in the environment or in millpond.toml cannot be used."""


class StartError(MillpondError):
    """A part of Millpond could not be started."""


class BadContract(MillpondError):
    """The fields of a task do not fit the contract of its kind. Nothing was sent."""


class UnknownKind(MillpondError):
    """No kind of task has this name."""


class SendInterrupted(MillpondError):
    """The sending of a task was interrupted, as by Ctrl-C. The task may have been accepted.

    `on_sent` of middleware gets it; the sender gets the interrupt itself.
    """


class HandlerMissing(MillpondError):
    """The handler of a kind is not installed in the process that was to run it. Nothing was sent."""


class UnknownQueue(MillpondError):
    """No pool takes from a queue of this name. Nothing was sent."""


class TaskError(MillpondError):
    """A handler could not do its work."""


class FinalError(TaskError):
    """Another run cannot help, as with a bad input. The message becomes a dead letter."""


class MiddlewareError(FinalError):
    """A middleware returned nothing and did not run the handler. The message becomes a dead letter."""


class RetryLater(TaskError):
    """Another run may help, as with an unreachable dependency. The task is retried after a backoff.

    `after_seconds` replaces the backoff, for a dependency that has answered when to try again.
    """

    def __init__(self, message: str, *, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class BadInput(FinalError):
    """A file, message or argument of the task cannot be used."""


class BadQuantity(BadInput, ValueError):
    """A value is no duration, rate or bound. In a model, pydantic reports it as a fault of the field."""


class OutsideRoots(BadInput):
    """A storage URL points outside the configured roots."""


class TooLarge(BadInput):
    """The input, or its expansion, is over a configured limit."""


class Cancelled(TaskError):
    """The task was cancelled while it ran, and its handler has stopped. Raised by `Context.checkpoint`."""
