"""One finding of a check."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """A check, its status, its finding, and the remedy if there is a fault."""

    check: str
    status: Status
    found: str
    do: str = ""


def ok(check: str, found: str) -> Finding:
    """Return a finding without a fault."""
    return Finding(check, "ok", found)


def warn(check: str, found: str, do: str) -> Finding:
    """Return a finding that may become a fault, or is one only for some users."""
    return Finding(check, "warn", found, do)


def fail(check: str, found: str, do: str) -> Finding:
    """Return a finding that prevents something from working."""
    return Finding(check, "fail", found, do)
