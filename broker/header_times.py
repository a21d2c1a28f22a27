"""The times in Celery's headers: when a task may run, and when it expires."""

from datetime import UTC, datetime
from typing import Any


def parse_eta_ms(written: Any) -> int | None:
    """Return a time of Celery's headers in ms since the epoch. A time without a zone is UTC.

    Raises `ValueError` or `TypeError` for an invalid time.
    """
    if written is None:
        return None
    moment = datetime.fromisoformat(written)
    try:
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def format_eta(ms: int | None) -> str | None:
    """Return a time in the format of Celery's headers."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat()
