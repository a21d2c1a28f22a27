"""The times in Celery's headers: when a task may run, and when it expires."""

from datetime import UTC, datetime
from typing import Any

#: The first and the last second that a time in UTC can have, ms. A time of another zone can be beyond them,
#: as `datetime.max` of a zone west of Greenwich is.
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_000


def parse_eta_ms(eta: Any) -> int | None:
    """Return a time of Celery's headers in ms since the epoch, or None for None. Without a zone it is UTC.

    A time that UTC cannot have is the first or the last one that it can. Raises `ValueError` or `TypeError`
    for an invalid time.
    """
    if eta is None:
        return None
    moment = datetime.fromisoformat(eta)
    try:
        ms = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except OverflowError as error:
        raise ValueError(str(error)) from error
    return _within_utc(ms)


def format_eta(ms: int | None) -> str | None:
    """Return a time, ms since the epoch, in the format of Celery's headers, or None for None."""
    return None if ms is None else datetime.fromtimestamp(_within_utc(ms) / 1000, UTC).isoformat()


def _within_utc(ms: int) -> int:
    """Return a time, or the first or the last one of UTC if it is beyond that."""
    return min(max(ms, _FIRST_MS), _LAST_MS)
