"""One line of the examination."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What was examined, how it is, and what to do where it is not well."""

    check: str
    status: Status
    found: str
    do: str = ""


def ok(check: str, found: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, "ok", found)


def warn(check: str, found: str, do: str) -> Finding:
    """Return a finding that works now and may not later, or that not everybody needs."""
    return Finding(check, "warn", found, do)


def fail(check: str, found: str, do: str) -> Finding:
    """Return a finding that keeps something from working."""
    return Finding(check, "fail", found, do)
