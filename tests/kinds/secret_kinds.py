"""A kind for the tests of redaction: it leaks its secret in every way that a body should not."""

import logging
import time
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import RetryLater
from millpond.tasks.handlers import body

logger = logging.getLogger(__name__)


class Blurt(Contract, kind="test.blurt"):
    """A task with a secret, in a list and under an alias too, and the way in which it leaks."""

    how: Literal["return", "raise", "wrap", "log", "print", "retry", "hold"]
    secret: str = Field(repr=False)
    more: list[dict[str, str]] = Field(default_factory=list, repr=False)
    token: str = Field(default="", repr=False, validation_alias=AliasChoices("token", "pass"))
    gate: str = ""


@body(Blurt, retries=1, backoff_seconds=0.1)
def blurt(job: Blurt, context: Context) -> str:
    """Leak the secret in the way of `how`."""
    match job.how:
        case "raise":
            raise KeyError(job.secret)
        case "wrap":
            raise ValueError(f"cannot log in with {job.secret!r} or {job.more[0]['deep']}")
        case "log":
            logger.warning("logging in with %s and %r", job.secret, job.more)
        case "print":
            print("logging in with", job.secret)
        case "retry":
            raise RetryLater(f"refused: {job.secret}")
        case "hold":
            while not Path(job.gate).exists():
                time.sleep(0.02)
    return job.secret
