"""Send periodic tasks when they are due; run as many schedulers as wanted, one leads.

The leader holds a lease in Redis; when it is gone, another leads within the lease. Each period is sent under
a claim of its own and by an id of its own, so it is sent once even where two take themselves for the leader,
or one was killed between sending and noting it. Periods that nobody could send are not made up for, but the
last of them is sent, late, and the log and the schedule's state say how many were missed. A period for which
the queue has no room is tried again every second until the next is due.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from millpond.broker import schedules
from millpond.broker.errors import BrokerError, QueueFull
from millpond.broker.schedules import Schedule
from millpond.broker.server import now_ms
from millpond.producer.client import Client
from millpond.producer.message import contract_from
from millpond.tasks.errors import BadContract, SettingsError, UnknownKind, UnknownQueue
from millpond.tasks.process.heartbeat_file import PulseFile, now
from millpond.tasks.schedule import Periodic

logger = logging.getLogger("millpond.scheduler")

#: How long a leader leads without a word of it, and the time between two looks.
LEASE_SECONDS = 10.0
LOOK_SECONDS = 1.0

#: A claim outlives two periods, so that one whose sending was not noted is found sent.
_CLAIM_MARGIN = timedelta(hours=1)


@dataclass
class Scheduler:
    """Be one of the schedulers of a table; `run` until told to stop."""

    client: Client
    table: Mapping[str, Periodic]
    on_ready: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        for name, periodic in self.table.items():
            try:
                contract_from((periodic.kind, periodic.fields))
            except (BadContract, UnknownKind) as error:
                raise SettingsError(f"schedule {name!r}: {error}") from None
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._leads = False
        self._pulse = PulseFile("scheduler", 1)

    def run(self, stop: threading.Event) -> None:
        """Take turns until told to stop, then let another lead."""
        try:
            self._pulse.open()
        except OSError as error:
            logger.warning("nobody can ask for the health of this scheduler: %s", error)
        ready = False
        while not stop.is_set():
            seconds = self._turn_or_wait()
            if not ready and self._pulse.pulse.answered_at is not None:
                ready = True
                self.on_ready()
            stop.wait(seconds)
        try:
            schedules.resign(self.client.store, self.name)
        except BrokerError as error:
            logger.warning("%s Another leads within %.0f s.", error, LEASE_SECONDS)
        self._pulse.close()

    def _turn_or_wait(self) -> float:
        """Take a turn; a broker that is away is tried again. Return the seconds to the next turn."""
        try:
            seconds = self.turn()
            self._pulse.say(turned_at=now(), answered_at=now(), leased=True)
        except BrokerError as error:
            if self._leads or self._pulse.pulse.answered_at is not None:
                logger.warning("%s Trying again every second.", error)
            self._leads = False
            self._pulse.say(turned_at=now(), answered_at=None, leased=False)
            seconds = LOOK_SECONDS
        return seconds

    def turn(self) -> float:
        """Lead if nobody else does, and send what is due; return the seconds until the next turn."""
        led, store = self._leads, self.client.store
        self._leads = schedules.lead(store, self.name, lease_ms=int(LEASE_SECONDS * 1000))
        if not self._leads:
            return LOOK_SECONDS
        at_ms = now_ms(store)
        if not led:
            logger.info("leading %d schedules as %s", len(self.table), self.name)
            schedules.declare(store, {n: self._described(p) for n, p in self.table.items()}, now_ms=at_ms)
        for state in schedules.read(store, self.table):
            self._see_to(state, self.table[state.name], at_ms)
        soonest = min((p.due_after(at_ms) for p in self.table.values()), default=at_ms + 60_000)
        return max(0.0, min(LOOK_SECONDS, (soonest - at_ms) / 1000))

    def _see_to(self, state: Schedule, periodic: Periodic, at_ms: int) -> None:
        last_ms = max(state.last_due_ms, state.since_ms)
        due_ms = periodic.due_until(at_ms)
        if due_ms > last_ms:
            self._fire(state, periodic, due_ms, missed=periodic.missed_between(last_ms, due_ms))
        next_ms = periodic.due_after(at_ms)
        if next_ms != state.next_due_ms:
            schedules.update(self.client.store, state.name, next_due_ms=next_ms)

    def _fire(self, state: Schedule, periodic: Periodic, due_ms: int, *, missed: int) -> None:
        name, at = state.name, datetime.fromtimestamp(due_ms / 1000, UTC).isoformat(timespec="seconds")
        period = timedelta(milliseconds=periodic.due_after(due_ms) - due_ms)
        try:
            sent = self.client.send(
                (periodic.kind, periodic.fields),
                queue=periodic.queue,
                id=f"{name}@{at}",
                once=f"schedule:{name}:{due_ms}",
                for_=2 * period + _CLAIM_MARGIN,
                overflow="reject",
            )
        except (QueueFull, UnknownQueue) as error:
            if not state.trouble:
                logger.warning("schedule %s, due %s, waits: %s", name, at, error)
            schedules.update(self.client.store, name, trouble=str(error))
            return
        if schedules.record_fired(
            self.client.store, name, due_ms=due_ms, id=sent.id, missed=missed, by=self.name
        ):
            late = f"; {missed} periods before it were missed" if missed else ""
            again = ", sent before and not noted" if sent.duplicate_of else ""
            logger.info("schedule %s, due %s: sent as %s%s%s", name, at, sent.id, again, late)

    @staticmethod
    def _described(periodic: Periodic) -> dict[str, str | int]:
        queue = periodic.queue or contract_from((periodic.kind, periodic.fields)).queue
        return {"kind": periodic.kind, "timing": periodic.timing, "queue": queue}
