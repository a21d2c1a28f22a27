"""Put aside the messages of kinds that this worker does not have, and log these kinds when it starts.

Another process may have the kind: one of a newer release, or one whose settings name its module. It fetches
such a message before the ready ones (scripts/_aside.lua). A message that no process has fetched after
`unknown_kind_seconds` of its queue becomes a dead letter, whose error says which worker to start.
"""

import logging
import re
import time
from collections.abc import Collection
from typing import Any

from celery import Celery, signals

from millpond.broker.delivery import Delivery
from millpond.broker.message import BadMessage
from millpond.broker.outcomes import Expired, Outcome, PutAside
from millpond.tasks.contract import contracts_by_kind, load_shipped_contracts
from millpond.tasks.extras import extras_of_queues
from millpond.tasks.handlers import modules_left_out
from millpond.tasks.pools import Queue
from millpond.tasks.settings import Settings

logger = logging.getLogger(__name__)

#: A kind is logged at most once in this many seconds, however many of its messages come.
LOGGED_SECONDS = 60.0


class UnknownKinds:
    """Decides the outcomes of messages whose kind this process does not have."""

    def __init__(self, settings: Settings) -> None:
        self._queues = settings.table.queues
        #: The time at which each kind was last logged (monotonic seconds).
        self._logged_at: dict[str, float] = {}

    def outcome_for(self, kind: str, delivery: Delivery) -> Outcome:
        """Return the outcome of a delivery whose kind this process lacks: `PutAside`, or `Expired`.

        It is put aside for `unknown_kind_seconds` of its queue, or until it expires if that is sooner.
        """
        queue, now_ms = delivery.queue, delivery.now_ms()
        seconds = self._queues.get(queue, Queue()).unknown_kind_seconds
        until_ms, expires_ms = now_ms + int(seconds * 1000), _expires_ms(delivery)
        if expires_ms is not None and expires_ms <= now_ms:
            return Expired()
        self._log_put_aside(kind, queue, seconds)
        expires = expires_ms is not None and expires_ms <= until_ms
        return PutAside(
            kind,
            f"no process that serves `{queue}` has the kind `{kind}`: {kind_remedy(kind)}",
            until_ms=until_ms if expires_ms is None else min(expires_ms, until_ms),
            expires=expires,
        )

    def _log_put_aside(self, kind: str, queue: str, seconds: float) -> None:
        """Log a kind that this process does not have, at most once in `LOGGED_SECONDS`."""
        now = time.monotonic()
        if now - self._logged_at.get(kind, -LOGGED_SECONDS) >= LOGGED_SECONDS:
            # Older entries are dropped: messages can name any number of kinds.
            self._logged_at = {name: at for name, at in self._logged_at.items() if now - at < LOGGED_SECONDS}
            self._logged_at[kind] = now
            logger.warning(
                "this process does not have the kind %s: its messages on %s wait %.0f s for one that does",
                *(kind, queue, seconds),
            )


def kind_remedy(kind: str) -> str:
    """Return an instruction: how to give a kind to the workers."""
    extra = _extra_of(kind)
    if extra:
        return f"install '.[{extra}]' where its workers run"
    return "start a worker with MILLPOND_KINDS=MODULE, the module that declares it"


def explain_missing_kinds(queues: Collection[str], present: Collection[str]) -> dict[str, str]:
    """Return why kinds of these queues cannot run here: kinds, joined by commas, and their common reason.

    `present` are the kinds that this worker has.
    """
    load_shipped_contracts()
    reasons: dict[str, list[str]] = {}
    for kind, contract in sorted(contracts_by_kind().items()):
        if kind not in present and contract.queue in queues:
            module = modules_left_out.get(f"{contract.__module__.rpartition('.')[0]}.task")
            why = f"{module} is not installed" if module else "no module has declared its handler"
            reasons.setdefault(f"{why}: {kind_remedy(kind)}", []).append(kind)
    return {", ".join(names): why for why, names in reasons.items()}


def install(app: Celery, settings: Settings) -> None:
    """Make workers of this application put unknown kinds aside, and log the missing kinds at their start."""
    app.unknown_kinds = UnknownKinds(settings)

    def log_missing_kinds(instance: Any, **_: Any) -> None:
        """Log a line for each reason why kinds of the worker's queues cannot run."""
        queues = set(instance.app.amqp.queues.consume_from)
        for kinds, why in explain_missing_kinds(queues, instance.app.tasks).items():
            logger.warning("cannot run %s: %s", kinds, why)

    app.log_missing_kinds = log_missing_kinds  # signals keep weak references
    signals.celeryd_after_setup.connect(log_missing_kinds)


def _extra_of(kind: str) -> str:
    """Return the extra of pyproject.toml that a shipped kind needs, or "" if it needs none."""
    contract = contracts_by_kind().get(kind)
    folders = re.findall(r"^millpond\.tasks\.(\w+)\.", contract.__module__) if contract else []
    return next(iter(extras_of_queues(folders)), "")


def _expires_ms(delivery: Delivery) -> int | None:
    """Return the time at which a message expires, or None if it has none or the time cannot be read."""
    try:
        return delivery.message.expires_ms
    except BadMessage:
        return None
