"""Tell when a message is due, by the header that Celery gives it."""

from datetime import UTC, datetime
from typing import Any


def due_ms(headers: dict[str, Any]) -> int | None:
    """Return when a message is due, ms since the epoch, by its `eta`; a time without a zone is UTC."""
    eta = headers.get("eta")
    if eta is None:
        return None
    due = datetime.fromisoformat(eta)
    return int((due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp() * 1000)
