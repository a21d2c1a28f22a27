"""A finding of `millpond doctor`, and a function for each of its statuses."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """A result of a check: its name, its status, the observation in words, and the remedy ("" for none)."""

    check: str
    status: Status
    found: str
    do: str = ""


def ok(check: str, text: str) -> Finding:
    """Return a finding without a fault."""
    return Finding(check, "ok", text)


def warn(check: str, fault: str, remedy: str) -> Finding:
    """Return a finding of a fault that may be intended, or concerns only some users."""
    return Finding(check, "warn", fault, remedy)


def fail(check: str, fault: str, remedy: str) -> Finding:
    """Return a finding of a fault that keeps something from working."""
    return Finding(check, "fail", fault, remedy)
