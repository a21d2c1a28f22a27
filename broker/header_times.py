"""The times in Celery's headers: when a task may run, and when it expires."""

from datetime import UTC, datetime
from typing import Any


def parse_eta_ms(eta: Any) -> int | None:
    """Return a time of Celery's headers in ms since the epoch, or None for None. Without a zone it is UTC.

    Raises `ValueError` or `TypeError` for an invalid time.
    """
    if eta is None:
        return None
    moment = datetime.fromisoformat(eta)
    try:
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def format_eta(ms: int | None) -> str | None:
    """Return a time, ms since the epoch, in the format of Celery's headers, or None for None."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat()
