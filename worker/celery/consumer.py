"""Celery's consumer: unreadable messages are dead-lettered, tasks that were not started are released."""

import logging
import random
import re
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.consumer.consumer import CANCEL_TASKS_BY_DEFAULT

from millpond.broker.celery.backend_notices import make_dead_letter_error, notify_end
from millpond.broker.celery.prefork_pool import (
    finish_reading_before_reset,
    finish_writing,
    queue_before_others,
    read_results_when_ready,
    reclaim_unsent,
)
from millpond.broker.celery.transport import to_kombu_message
from millpond.broker.connection import translate_errors
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.delivery import Delivery
from millpond.broker.errors import BrokerError
from millpond.broker.outcomes import DeadLetter, Expired
from millpond.tasks.process.heartbeat_file import HEARTBEAT_SECONDS
from millpond.worker.celery.request import PondRequest
from millpond.worker.celery.stock_tasks import use_millpond_strategy
from millpond.worker.celery.strategy import make_receiver
from millpond.worker.dispatch.chunks import Chunks
from millpond.worker.dispatch.slot_request import SlotRequest
from millpond.worker.dispatch.thread_pool import ThreadSlots
from millpond.worker.shutdown import keep_reading_control

logger = logging.getLogger(__name__)

#: Events for Flower are sent together: after this many seconds, or as soon as there are this many.
EVENTS_FLUSH_SECONDS = 0.2
MOST_BUFFERED_EVENTS = 1_000

#: The longest wait between two attempts to connect is a random number of seconds between these.
LONGEST_WAIT_SECONDS = (2.0, 5.0)


class PondConsumer(Consumer):
    """Celery's consumer over Millpond's transport."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.chunks = Chunks(kwargs["pool"])
        #: The thread slots, made before any task arrives; None if the pool has no threads.
        self.threads: ThreadSlots | None = None
        #: Stops the thread that reads the control state after `stop`. Does nothing before.
        self._stop_reading_control: Callable[[], None] = lambda: None
        super().__init__(*args, **kwargs)

    # Connecting

    def ensure_connected(self, conn: Any) -> Any:
        """Connect with random, growing waits until the broker can be reached, and return the connection.

        Raises `WorkerShutdown` or `WorkerTerminate` if the worker is stopped meanwhile. With Celery's own
        fixed waits of 2, 4, 6 … 30 s all workers would connect at the same moment, and late.
        """
        self.first_connection_attempt = False

        def log_attempt(error: Exception, seconds: float) -> None:
            logger.error("%s cannot be reached: %s Trying again in %.1f s", conn.as_uri(), error, seconds)

        def check_shutdown() -> None:  # called at least every two seconds
            self.app.health.record_loop_alive()
            state.maybe_shutdown()

        return conn.ensure_connection(
            log_attempt,
            interval_start=random.uniform(0.05, 0.3),
            interval_step=random.uniform(0.1, 0.5),
            interval_max=random.uniform(*LONGEST_WAIT_SECONDS),
            callback=check_shutdown,
        )

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Handle a lost connection without Celery's warning, which advises to cancel running tasks.

        Running tasks go on under their leases.
        """
        warnings.filterwarnings("ignore", message=re.escape(CANCEL_TASKS_BY_DEFAULT))
        super().on_connection_error_after_connected(exc)

    # Events

    def register_with_event_loop(self, hub: Any) -> None:
        """Register callbacks of the event loop: reading results, sending events, health, and chunks.

        Events are sent together, a few times a second. Celery itself would send some in every turn of its
        loop, and wait for the broker each time.
        """
        super().register_with_event_loop(hub)
        finish_reading_before_reset(self.pool, hub)
        if self.event_dispatcher:
            self.event_dispatcher.buffer_limit = MOST_BUFFERED_EVENTS
            self.event_dispatcher.on_send_buffered = None
            hub.call_repeatedly(EVENTS_FLUSH_SECONDS, self.flush_events)
        self.in_flight.on_control = self._on_control
        hub.call_repeatedly(HEARTBEAT_SECONDS, self.app.health.record_loop_alive)
        self.chunks.start(hub.call_later, self._queue_reclaimed)

    def flush_events(self) -> None:
        """Send the buffered events."""
        if self.event_dispatcher:
            self.event_dispatcher.flush()

    def _on_control(self, confirm: Callable[[], None]) -> None:
        """Apply the control state: release the tasks that must not start any more, and call `confirm`.

        These are the cancelled tasks, and in a drained pool all tasks. Tasks that were sent to a child and
        have not started are reclaimed first. A child whose task was cancelled with `terminate` is killed. In
        a drained pool running tasks have the drain deadline.
        """
        in_flight = self.in_flight

        def must_not_start(request: SlotRequest) -> bool:
            return in_flight.drained or in_flight.is_cancelled(request.delivery)

        reclaimed = self.chunks.reclaim_unstarted(must_not_start)
        self._kill_terminated_tasks()
        for request in self._known_requests():
            if not request.started and must_not_start(request):
                request.release()
        self.app.drain.apply_pool_drain(in_flight.drained)
        self._queue_reclaimed(reclaimed)
        confirm()

    def _kill_terminated_tasks(self) -> None:
        """Kill the children that run a task that was cancelled with `terminate`."""
        for request in self._known_requests():
            # A request whose result is still unread may have ended, and its child runs another task of the
            # chunk: the child must not be killed for the request that has ended.
            is_running = request.chunk is None or request.chunk.last_unsettled is request
            if request.in_child and is_running and self.in_flight.is_terminated(request.delivery):
                request.terminate(self.pool)

    def _queue_reclaimed(self, reclaimed: list[SlotRequest]) -> None:
        """Start tasks that were reclaimed from a child while slots are free. Queue the rest.

        They are queued before the tasks that wait for a slot already, which came later.
        """
        waiting = deque(request for request in reclaimed if not request.acknowledged)
        if not waiting:
            return
        slots = self.controller.semaphore
        while waiting and slots.value > 0:
            self.on_task_request(waiting.popleft())
        queue_before_others(self.controller, waiting)

    # Messages

    def update_strategies(self) -> None:
        """Set the receiving strategy of each kind. A plain Celery task gets that of tasks with a handler.

        The slots and the consuming channel are prepared first, because the strategies need them.
        """
        use_millpond_strategy(self.app)
        self._prepare_slots()
        # Only this channel of the connection consumes.
        self.connection.default_channel.use_in_flight(self.in_flight)
        super().update_strategies()

    def create_task_handler(self) -> Callable[[Any], None]:
        """Return the function that receives a message of kombu's, and set the one that receives a delivery.

        The function that dead-letters what cannot be received is set, too. A delivery whose kind has no
        strategy of Millpond's becomes a message of kombu's for Celery's own function.
        """
        receive_by_celery, channel = super().create_task_handler(), self.task_consumer.channel

        def receive_unusual(delivery: Delivery) -> None:
            message = channel.Message(to_kombu_message(delivery), channel=channel)
            message.accept = self.task_consumer.accept  # else kombu takes any content that it can read
            receive_by_celery(message)

        receive = make_receiver(self.strategies, otherwise=receive_unusual, dead_letter=self._dead_letter)
        self.in_flight.receive, self.in_flight.dead_letter = receive, self._dead_letter
        return lambda message: receive(message.delivery)

    @property
    def in_flight(self) -> InFlightMessages:
        """Return the messages that this process has in flight."""
        in_flight: InFlightMessages = self.app.in_flight
        return in_flight

    def _prepare_slots(self) -> None:
        """Announce the kinds of this process, set how deliveries are settled, and make the thread slots."""
        self.in_flight.announce_kinds(self.app.tasks)
        self.in_flight.settle_by(self.hub and self.hub.call_soon, self._settle_now)
        if self.threads is None and isinstance(self.pool, ThreadPool):
            self.threads = ThreadSlots(self.pool.executor, self.pool.limit, self.in_flight)

    def _settle_now(self) -> None:
        """Settle the finished deliveries at once, if the consumer has a channel."""
        if self._channel is not None:
            self._channel.settle_now()

    @property
    def _channel(self) -> Any:
        """The channel that consumes, or None while there is no connection."""
        return getattr(self.task_consumer, "channel", None)

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
            message.delivery.needs_notice = not notify_end(self.app, message.delivery.message, "expired")
        self.in_flight.queue_outcome(message.delivery, outcome)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Dead-letter a task whose message cannot be used."""
        self._dead_letter(message.delivery, "invalid message", exc)

    def _dead_letter(self, delivery: Delivery, reason: str, error: object) -> None:
        """Dead-letter a message, and mark its task as failed in its result backend."""
        logger.error("Message %s dead-lettered: %s: %s", delivery.message.id or "?", reason, error)
        if delivery.message.id:
            shown = make_dead_letter_error(reason, str(error))
            delivery.needs_notice = not notify_end(self.app, delivery.message, "failed", shown)
        self.in_flight.queue_outcome(delivery, DeadLetter(reason, str(error)))

    # Stopping

    def on_close(self) -> None:
        """Keep every task after a lost connection: its lease goes on, and the next connection settles it.

        Celery would forget here the tasks that had not started, because its brokers deliver them again.
        """
        finish_writing(self.pool)

    def stop(self) -> None:
        """Stop fetching and release tasks that have not started. Running tasks go on."""
        channel = self._channel
        if channel is not None:
            self.in_flight.draining = True
            self._call_broker_safely(channel.finish_call)
        super().stop()
        finish_writing(self.pool)
        unsent_ids = reclaim_unsent(self.pool)
        self.chunks.stop()
        if self.threads is not None:
            self.threads.stop()
        read_results_when_ready(self.pool, meanwhile=self._kill_terminated_tasks)
        for request in self._known_requests():
            if not request.started or request.id in unsent_ids:
                request.release()
        # The event loop gathered outcomes before the signal, which it does not send any more.
        self._settle_now()
        if channel is not None:
            # From now on nothing starts here: cancel() and drain() need not wait for this process.
            self._call_broker_safely(channel.acknowledge_future_changes)
            if self.pool.uses_semaphore:
                # Tasks in prefork children go on, and the event loop receives no control state any more.
                self._stop_reading_control = keep_reading_control(channel.store, self.in_flight)

    def shutdown(self) -> None:
        """Settle the finished tasks, release the rest, and leave the queues."""
        self._stop_reading_control()
        if self._channel is not None:
            self._call_broker_safely(self._channel.leave_queues)
        if (unended := self._known_requests()) and not state.should_terminate:
            logger.error("%d tasks count as running although all have ended: %s", len(unended), unended[:3])
        super().shutdown()

    def _call_broker_safely(self, call: Callable[[], None]) -> None:
        """Call a function of the channel while the worker stops. An error of the broker is only logged."""
        try:
            with translate_errors("leaving the queues"):
                call()
        except BrokerError as error:
            logger.warning("%s Messages in flight become ready again when their lease expires.", error)

    def _known_requests(self) -> list[PondRequest]:
        """Return the requests that Celery knows in this process."""
        requests = {*state.reserved_requests, *state.active_requests, *state.requests.values()}
        return [request for request in requests if isinstance(request, PondRequest)]
