"""Send scheduled tasks when they are due. Of any number of schedulers, one is the leader and sends.

The leader has a lease in Redis. When it dies, another scheduler leads within the length of the lease. Each
period is sent with its own unique key and its own id. It is therefore sent once even if two schedulers act as
the leader, or if one is killed after it sent a period and before it recorded it. Of the periods that no
scheduler could send, only the last is sent, late. The log and the state of the schedule say how many were
missed. A period whose queue is full is tried again every second until the next period is due.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Union
from uuid import uuid4

from millpond.broker import schedules
from millpond.broker.errors import BrokerError, QueueFull
from millpond.broker.schedules import Schedule
from millpond.broker.server import server_time_ms
from millpond.producer.client import Client
from millpond.producer.message import contract_from
from millpond.tasks.errors import BadContract, MillpondError, SettingsError, UnknownKind
from millpond.tasks.execute import error_line
from millpond.tasks.process.heartbeat_file import HeartbeatFile, boot_clock
from millpond.tasks.process.process_namespace import ANY, ProcessNamespace
from millpond.tasks.schedule import ScheduleSettings

if TYPE_CHECKING:
    from millpond.producer.beat_schedule import BeatEntry  # it needs Celery

#: A task and the times at which it is due.
Scheduled = Union[ScheduleSettings, "BeatEntry"]

logger = logging.getLogger("millpond.scheduler")

#: The lease of the leader, and the longest time between two ticks.
LEASE_SECONDS = 10.0
TICK_SECONDS = 1.0

#: A unique key is kept for two periods and this time, so that a period that was sent and not recorded is not
#: sent again.
_KEY_MARGIN = timedelta(hours=1)


@dataclass
class Scheduler:
    """A scheduler of a table of schedules, by name, at least one. Any number of schedulers may have the same.

    `on_ready` is called once, when the broker has replied. `namespace` is for the heartbeat file. Raises
    `SettingsError` for a schedule whose task cannot be sent.
    """

    client: Client
    table: Mapping[str, Scheduled]
    on_ready: Callable[[], None] = lambda: None
    namespace: ProcessNamespace = ANY

    def __post_init__(self) -> None:
        """Check that the tasks can be sent, and choose a name that no other scheduler has."""
        for name, scheduled in self.table.items():
            try:
                if isinstance(scheduled.sendable, tuple):
                    contract_from(scheduled.sendable)
            except (BadContract, UnknownKind) as error:
                raise SettingsError(f"schedule {name!r}: {error}") from None
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._is_leader = False
        self._heartbeat_file = HeartbeatFile("scheduler", 1, namespace=self.namespace)

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set, then give up the lease.

        Calls `on_ready` when the broker has replied, and writes a heartbeat file for health checks.
        """
        try:
            self._heartbeat_file.open()
        except OSError as error:
            logger.warning("health checks cannot see this scheduler: %s", error)
        is_ready = False
        while not stop.is_set():
            seconds = self._tick_safely()
            if not is_ready and self._heartbeat_file.heartbeat.broker_answered_at:
                is_ready = True
                self.on_ready()
            stop.wait(seconds)
        try:
            schedules.give_up_lead(self.client.store, self.name)
        except BrokerError as error:
            logger.warning("%s Another leads within %.0f s.", error, LEASE_SECONDS)
        self._heartbeat_file.remove()

    def _tick_safely(self) -> float:
        """Tick, log an error of the broker, and write the heartbeat. Return the seconds to the next tick."""
        try:
            seconds = self.tick()
            self._heartbeat_file.write(loop_at=boot_clock(), broker_answered_at=boot_clock(), has_lease=True)
        except BrokerError as error:
            if self._is_leader or self._heartbeat_file.heartbeat.broker_answered_at != 0:
                logger.warning("%s Trying again every second.", error)
            self._is_leader = False
            self._heartbeat_file.write(loop_at=boot_clock(), broker_answered_at=0.0, has_lease=False)
            seconds = TICK_SECONDS
        return seconds

    def tick(self) -> float:
        """Renew the lease, or take it if it is free. The leader sends the periods that are due.

        Return the seconds until the next tick.
        """
        was_leader, store = self._is_leader, self.client.store
        self._is_leader = schedules.take_lead(store, self.name, lease_ms=int(LEASE_SECONDS * 1000))
        if not self._is_leader:
            return TICK_SECONDS
        at_ms = server_time_ms(store)
        if not was_leader:
            logger.info("leading %d schedules as %s", len(self.table), self.name)
            schedules.declare_schedules(
                store,
                {name: self._describe_schedule(scheduled) for name, scheduled in self.table.items()},
                now_ms=at_ms,
            )
        for state in schedules.read_schedules(store, self.table):
            self._send_if_due(state, self.table[state.name], at_ms)
        next_ms = min(scheduled.next_due(at_ms) for scheduled in self.table.values())
        return max(0.0, min(TICK_SECONDS, (next_ms - at_ms) / 1000))

    def _send_if_due(self, state: Schedule, scheduled: Scheduled, at_ms: int) -> None:
        """Send the last period of a schedule if it was not sent yet, and record when the next one is due."""
        last_ms = max(state.last_due_ms, state.since_ms)
        due_ms = scheduled.last_due(at_ms)
        if due_ms > last_ms:
            self._fire_period(state, scheduled, due_ms, missed=scheduled.missed_between(last_ms, due_ms))
        next_ms = scheduled.next_due(at_ms)
        if next_ms != state.next_due_ms:
            schedules.update_schedule(self.client.store, state.name, next_due_ms=next_ms)

    def _fire_period(self, state: Schedule, scheduled: Scheduled, due_ms: int, *, missed: int) -> None:
        """Send the task of a period, once over all schedulers, and record that the period was fired.

        A period that cannot be sent is not recorded: its error becomes the trouble of the schedule, and the
        next tick tries again. Raises the errors of the broker, except `QueueFull`.
        """
        name, due = state.name, datetime.fromtimestamp(due_ms / 1000, UTC).isoformat(timespec="seconds")
        period = timedelta(milliseconds=scheduled.next_due(due_ms) - due_ms)
        options = replace(
            scheduled.options,
            id=f"{name}@{due}",
            once=f"schedule:{name}:{due_ms}",
            for_=2 * period + _KEY_MARGIN,
        )
        try:
            sent = self.client.send(scheduled.sendable, **options.non_default(), overflow="reject")
        except Exception as error:  # also of Celery or middleware: it must not stop the other schedules
            if isinstance(error, BrokerError) and not isinstance(error, QueueFull):
                raise  # it concerns every schedule: the next tick tries them all again
            trouble = str(error) if isinstance(error, MillpondError) else error_line(error)
            if not state.trouble:
                logger.warning("schedule %s, due %s, is not sent yet: %s", name, due, trouble)
            schedules.update_schedule(self.client.store, name, trouble=trouble)
            return
        if schedules.record_fired(
            self.client.store, name, due_ms=due_ms, task_id=sent.id, missed=missed, scheduler=self.name
        ):
            late = f"; the {missed} periods before it were missed" if missed else ""
            again = " before, and only now recorded" if sent.duplicate_of else ""
            logger.info("schedule %s, due %s: sent as %s%s%s", name, due, sent.id, again, late)

    @staticmethod
    def _describe_schedule(scheduled: Scheduled) -> dict[str, str | int]:
        """Return the kind, the timing and the queue of a schedule, which Redis keeps with its state."""
        sendable, queue = scheduled.sendable, scheduled.options.queue
        if not queue:
            queue = contract_from(sendable).queue if isinstance(sendable, tuple) else ""
        return {"kind": scheduled.kind, "timing": scheduled.timing, "queue": queue}
