"""Outcomes: how a delivery ended, and the words that settle_and_fetch.lua receives for each.

An outcome is made once, by `tasks/execute.py` or by the worker that lost a slot, and encoded once, here.
"""

from dataclasses import dataclass
from json import dumps
from typing import Any, TypeAlias

from millpond.broker.message_names import escape_surrogates


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The task succeeded. `result` is the JSON (ASCII) of its value, if that is kept.

    `shown` is the value as logs and events show it.
    """

    result: str | None = None
    shown: str = "None"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle quicker than a dataclass with slots does by itself."""
        return Succeeded, (self.result, self.shown)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The task was cancelled. `started` is False if its handler never ran."""

    error: str | None = None
    started: bool = True


@dataclass(frozen=True, slots=True)
class Expired:
    """The task is not run, because the time by which it had to start has passed."""


@dataclass(frozen=True, slots=True)
class Continued:
    """This message is settled. Its task goes on as another message, which was published before."""

    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """The task runs again: `message` replaces this one and is due at `due_ms` (ms, the server's clock).

    `error` is one line.
    """

    message: str
    due_ms: int
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Delay:
    """The same message becomes ready at `due_ms` (ms, the server's clock). No delivery is counted."""

    due_ms: int


@dataclass(frozen=True, slots=True)
class PutAside:
    """The process does not have the `kind`: until `until_ms` the message waits for a consumer that has it.

    Then the message becomes a dead letter with this `error`, or expires if `expires` is True.
    """

    kind: str
    error: str
    until_ms: int
    expires: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """The message returns to the head of its queue, and no delivery is counted.

    Its handler has not run, or the result of its handler was lost with a child that another task has ended.
    """


@dataclass(frozen=True, slots=True)
class Redeliver:
    """The message returns to the head of its queue, and the delivery is counted.

    After too many deliveries the message becomes a dead letter.
    """

    error: str = ""


@dataclass(frozen=True, slots=True)
class Requeue:
    """The message returns to the end of its queue, as its consumer requested, and the delivery is counted."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The message will not run again: it is kept whole, with `reason` and `error` (one line each).

    `details` is further JSON for people: traceback, retries, worker, started_at.
    """

    reason: str
    error: str
    details: dict[str, Any] | None = None
    #: True if the handler raised the error on purpose, so it is logged without its traceback.
    expected: bool = False
    #: True if the result backend did not take this outcome of a run in a prefork child. For other runs see
    #: `Delivery.needs_notice`.
    needs_notice: bool = False

    @property
    def traceback(self) -> str:
        """Return the traceback, empty if there is none."""
        return str((self.details or {}).get("traceback", ""))


Outcome: TypeAlias = (
    Succeeded
    | Cancelled
    | Expired
    | Continued
    | Retry
    | Delay
    | PutAside
    | Release
    | Redeliver
    | Requeue
    | DeadLetter
)

SUCCEEDED, RELEASE, REDELIVER, REQUEUE = Succeeded(), Release(), Redeliver(), Requeue()
REJECTED = DeadLetter("rejected", "rejected")
NOT_RUN = Cancelled(started=False)

#: Action, state, detail (JSON), due ms, text: see scripts/settle_and_fetch.lua.
Words: TypeAlias = tuple[str, str, str, int, str]

_SUCCEEDED: Words = ("settle", "succeeded", "{}", 0, "")


def encode_outcome(outcome: Outcome) -> Words:
    """Return the words that settle_and_fetch.lua receives for an outcome."""
    match outcome:
        case Succeeded(None):
            return _SUCCEEDED
        case Succeeded(result):
            return "settle", "succeeded", result or "{}", 0, ""
        case Retry(message, due_ms):
            return "replace", "retried", "{}", due_ms, message
        case DeadLetter(reason, error, details):
            action = "notice bury" if outcome.needs_notice else "bury"
            return action, "failed", dumps({"error": error, **(details or {})}), 0, escape_surrogates(reason)
        case Cancelled(error, started):
            detail = "{}" if error is None else dumps({"error": error})
            return "settle" if started else "drop", "cancelled", detail, 0, ""
        case Expired():
            return "drop", "expired", "{}", 0, ""
        case Continued():
            return "settle", "", "{}", 0, ""
        case Delay(due_ms):
            return "delay", "", "{}", due_ms, ""
        case PutAside(kind, error, until_ms, expires):
            return "aside", "expired" if expires else "", dumps({"error": error}), until_ms, kind
        case Release():
            return "return", "", "{}", 0, ""
        case Redeliver():
            return "redeliver", "", "{}", 0, ""
        case Requeue():
            return "requeue", "", "{}", 0, ""
