"""Celery's consumer: unreadable messages are dead-lettered, tasks that were not started are released."""

import logging
import re
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.consumer.consumer import CANCEL_TASKS_BY_DEFAULT

from millpond.broker.celery.backend_notices import dead_letter_error, notify_end
from millpond.broker.celery.prefork_pool import (
    finish_writing,
    keep_reading,
    put_first_in_line,
    read_results_when_ready,
    reclaim_unsent,
)
from millpond.broker.celery.transport import for_kombu
from millpond.broker.connection import translate_errors
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.delivery import Delivery
from millpond.broker.errors import BrokerError
from millpond.broker.outcomes import DeadLetter, Expired
from millpond.tasks.process.heartbeat_file import HEARTBEAT_SECONDS
from millpond.worker.celery.reconnect import reconnect
from millpond.worker.celery.request import PondRequest
from millpond.worker.celery.stock_tasks import use_millpond_strategy
from millpond.worker.celery.strategy import make_receiver
from millpond.worker.dispatch.chunks import Chunks
from millpond.worker.dispatch.slot_request import SlotRequest
from millpond.worker.dispatch.thread_pool import ThreadSlots
from millpond.worker.shutdown_listener import ShutdownListener

logger = logging.getLogger(__name__)

#: How long an event for Flower waits for company, and how many may.
EVENTS_SECONDS = 0.2
EVENTS_GATHERED = 1_000


class PondConsumer(Consumer):
    """Celery's consumer over Millpond's transport."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.chunks = Chunks(kwargs["pool"])
        #: The pool of threads. It is made before any task arrives.
        self.threads: ThreadSlots | None = None
        #: Hears for the children of a process that stops.
        self.listening: ShutdownListener | None = None
        super().__init__(*args, **kwargs)

    # Connecting

    def ensure_connected(self, conn: Any) -> Any:
        """Wait until the broker can be reached."""
        self.first_connection_attempt = False
        return reconnect(conn, self.app.health.record_loop_alive)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Connect again, without Celery's advice to end running tasks: they are under a lease, and go on."""
        warnings.filterwarnings("ignore", message=re.escape(CANCEL_TASKS_BY_DEFAULT))
        super().on_connection_error_after_connected(exc)

    # Events

    def register_with_event_loop(self, hub: Any) -> None:
        """Register what the loop reads and calls by the clock: results, events, health, and chunks.

        Events are sent a few times a second. Celery would wait for the broker in every turn of its loop.
        """
        super().register_with_event_loop(hub)
        keep_reading(self.pool, hub)
        if self.event_dispatcher:
            self.event_dispatcher.buffer_limit = EVENTS_GATHERED
            self.event_dispatcher.on_send_buffered = None
            hub.call_repeatedly(EVENTS_SECONDS, self.send_events)
        self.in_flight.on_control = self._on_control
        hub.call_repeatedly(HEARTBEAT_SECONDS, self.app.health.record_loop_alive)
        self.chunks.watch(hub.call_later, self._queue_reclaimed)

    def send_events(self) -> None:
        """Send the events that were gathered."""
        if self.event_dispatcher:
            self.event_dispatcher.flush()

    def _on_control(self, confirm: Callable[[], None]) -> None:
        """Drop the tasks that must not start any more, also those sent to a child, and confirm.

        A running task that was cancelled with `terminate` is ended, in a child. In a drained pool running
        tasks have the drain deadline.
        """
        in_flight = self.in_flight
        reclaimed = self.chunks.reclaim_unstarted(
            lambda each: in_flight.drained or in_flight.is_cancelled(each.delivery)
        )
        self._end_terminated()
        for request in self._known_requests():
            if not request.started and (in_flight.drained or in_flight.is_cancelled(request.delivery)):
                request.release()
        self.app.drain.on_drained(in_flight.drained)
        self._queue_reclaimed(reclaimed)
        confirm()

    def _end_terminated(self) -> None:
        """End the tasks in children that were cancelled with `terminate`."""
        for request in self._known_requests():
            # The result of an earlier task of its child may still be unread: the child must not be killed for
            # that one.
            alone = request.chunk is None or request.chunk.running is request
            if request.in_child and alone and self.in_flight.is_terminated(request.delivery):
                request.terminate(self.pool)

    def _queue_reclaimed(self, reclaimed: list[SlotRequest]) -> None:
        """Queue tasks that were reclaimed from a child, before those that came later."""
        waiting = deque(each for each in reclaimed if not each.acknowledged)
        if not waiting:
            return
        slots = self.controller.semaphore
        while waiting and slots.value > 0:
            self.on_task_request(waiting.popleft())
        put_first_in_line(self.controller, waiting)

    # Messages

    def update_strategies(self) -> None:
        """Choose how each kind is received. Plain Celery tasks are received as tasks with a handler are."""
        use_millpond_strategy(self.app)
        self._prepare_slots()
        # Of all channels of the connection, this one consumes.
        self.connection.default_channel.use_in_flight(self.in_flight)
        super().update_strategies()

    def create_task_handler(self) -> Callable[[Any], None]:
        """Return Celery's function that receives a message, and receive deliveries without it."""
        unusual, channel = super().create_task_handler(), self.task_consumer.channel

        def receive_unusual(delivery: Delivery) -> None:
            message = channel.Message(for_kombu(delivery), channel=channel)
            message.accept = self.task_consumer.accept  # else kombu takes any content that it can read
            unusual(message)

        receive = make_receiver(self.strategies, otherwise=receive_unusual, dead_letter=self._dead_letter)
        self.in_flight.receive = receive
        return lambda message: receive(message.delivery)

    @property
    def in_flight(self) -> InFlightMessages:
        """Return the messages that this process has in flight."""
        in_flight: InFlightMessages = self.app.in_flight
        return in_flight

    def _prepare_slots(self) -> None:
        """Announce the kinds, and prepare the pool for deliveries."""
        self.in_flight.announce_kinds(self.app.tasks)
        self.in_flight.settle_by(self.hub and self.hub.call_soon, self._settle_now)
        if self.threads is None and isinstance(self.pool, ThreadPool):
            self.threads = ThreadSlots(self.pool.executor, self.pool.limit, self.in_flight)

    def _settle_now(self) -> None:
        """Settle the finished deliveries at once, while the consumer has a channel."""
        channel = getattr(self.task_consumer, "channel", None)
        if channel is not None:
            channel.settle_now()

    # Messages that cannot be run

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Dead-letter a message whose body cannot be decoded."""
        self._dead_letter(message.delivery, "cannot be decoded", exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Dead-letter a message that is no task."""
        self._dead_letter(message.delivery, "not a task", "its headers name no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Put aside a task of a kind that this worker does not have, for a worker that has it."""
        outcome = self.app.unknown_kinds.outcome_for(str(exc.args[0])[:255], message.delivery)
        if isinstance(outcome, Expired):
            notify_end(self.app, message.delivery.message, "expired")
        self.in_flight.settle(message.delivery, outcome)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Dead-letter a task whose message cannot be used."""
        self._dead_letter(message.delivery, "invalid message", exc)

    def _dead_letter(self, delivery: Delivery, reason: str, error: object) -> None:
        """Dead-letter a message, and mark its task as failed in its result backend."""
        logger.error("Message %s dead-lettered: %s: %s", delivery.message.id or "?", reason, error)
        if delivery.message.id:
            notify_end(self.app, delivery.message, "failed", dead_letter_error(reason, str(error)))
        self.in_flight.settle(delivery, DeadLetter(reason, str(error)))

    # Stopping

    def on_close(self) -> None:
        """Keep every task after a lost connection: its lease goes on, and the next connection settles it.

        Celery would forget here the tasks that had not started, because its brokers deliver them again.
        """
        finish_writing(self.pool)

    def stop(self) -> None:
        """Stop fetching and release tasks that have not started. Running tasks go on."""
        channel = getattr(self.task_consumer, "channel", None)
        if channel is not None:
            self.in_flight.draining = True
            self._run_unless_broker_away(channel.finish_call)
        super().stop()
        finish_writing(self.pool)
        never_given = reclaim_unsent(self.pool)
        self.chunks.stop()
        read_results_when_ready(self.pool, meanwhile=self._end_terminated)
        for request in self._known_requests():
            if not request.started or request.id in never_given:
                request.release()
        if channel is not None:
            # From now on nothing starts here: cancel() need not wait for this process.
            self._run_unless_broker_away(channel.acknowledge_all_future)
            if self.pool.uses_semaphore:
                self.listening = ShutdownListener(channel.store, self.in_flight)
                self.listening.start()

    def shutdown(self) -> None:
        """Settle the finished tasks, release the rest, and leave the queues."""
        if self.listening is not None:
            self.listening.stop()
        channel = getattr(self.task_consumer, "channel", None)
        if channel is not None:
            self._run_unless_broker_away(channel.leave_queues)
        if (left := self._known_requests()) and not state.should_terminate:
            logger.error("%d tasks count as running although all have ended: %s", len(left), left[:3])
        super().shutdown()

    def _run_unless_broker_away(self, step: Callable[[], None]) -> None:
        """Run a step of leaving. An error of the broker is logged."""
        try:
            with translate_errors("leaving the queues"):
                step()
        except BrokerError as error:
            logger.warning("%s What is held comes back when its lease runs out.", error)

    def _known_requests(self) -> list[PondRequest]:
        """Return the requests that Celery knows in this process."""
        requests = {*state.reserved_requests, *state.active_requests, *state.requests.values()}
        return [request for request in requests if isinstance(request, PondRequest)]
