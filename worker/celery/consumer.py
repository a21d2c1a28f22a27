"""Consume as Celery does, but bury what cannot be read and give back what was not started."""

import logging
import re
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.concurrency.thread import TaskPool as ThreadPool
from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer
from celery.worker.consumer.consumer import CANCEL_TASKS_BY_DEFAULT
from celery.worker.state import requests, reserved_requests
from kombu.exceptions import ContentDisallowed, DecodeError

from millpond.broker.connection import translate_errors
from millpond.broker.consume.in_flight import Holder
from millpond.broker.errors import BrokerError
from millpond.broker.message import BadMessage
from millpond.broker.outcomes import DeadLetter
from millpond.tasks.process.heartbeat_file import HEARTBEAT_SECONDS
from millpond.worker.celery.handover import finish_writing, keep_reading, read_results_as_they_come, take_back
from millpond.worker.celery.reconnect import connected
from millpond.worker.celery.request import PondRequest
from millpond.worker.celery.stock_tasks import adopt
from millpond.worker.completer import Settler
from millpond.worker.dispatch.chunks import Grouper
from millpond.worker.dispatch.thread_pool import Pull
from millpond.worker.report.task_metrics import Meter
from millpond.worker.shutdown_listener import ShutdownListener

logger = logging.getLogger(__name__)

#: How long an event for Flower waits for company, and how many may.
EVENTS_SECONDS = 0.2
EVENTS_GATHERED = 1_000


class PondConsumer(Consumer):
    """Celery's consumer over Millpond's transport."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.grouper = Grouper(kwargs["pool"])
        self.meter = Meter()
        #: How ended deliveries come to be settled, and threads to their tasks; made before any arrives.
        self.settler: Settler | None = None
        self.pull: Pull | None = None
        #: Hears for the children of a process that stops.
        self.listening: ShutdownListener | None = None
        super().__init__(*args, **kwargs)

    # Connecting

    def ensure_connected(self, conn: Any) -> Any:
        """Wait until the broker can be reached."""
        self.first_connection_attempt = False
        return connected(conn, self.app.health.turn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Begin anew, without the advice to end what runs: it is held under a lease, and goes on."""
        warnings.filterwarnings("ignore", message=re.escape(CANCEL_TASKS_BY_DEFAULT))
        super().on_connection_error_after_connected(exc)

    # Events

    def register_with_event_loop(self, hub: Any) -> None:
        """Send events a few times a second; Celery would wait for the broker in every turn of its loop."""
        super().register_with_event_loop(hub)
        keep_reading(self.pool, hub)
        if self.event_dispatcher:
            self.event_dispatcher.buffer_limit = EVENTS_GATHERED
            hub.call_repeatedly(EVENTS_SECONDS, self._flush_events)
        self.task_consumer.channel.holder.on_news = self._on_news
        hub.call_repeatedly(HEARTBEAT_SECONDS, self.app.health.turn)
        self.grouper.watch(hub.call_later, self._start_again)

    def on_send_event_buffered(self) -> None:
        """Do nothing: the timer sends what is gathered."""

    def _on_news(self, confirm: Callable[[], None]) -> None:
        """Let go of what must not start any more, a child's included, and confirm.

        What was cancelled and shall not go on is ended, in a child. In a drained pool what runs has its
        deadline.
        """
        holder = self.task_consumer.channel.holder
        taken = self.grouper.take_back(lambda each: holder.drained or holder.is_cancelled(each.delivery))
        self._end_terminated()
        for request in self._requests():
            if not request.started and (holder.drained or holder.is_cancelled(request.delivery)):
                request.give_back()
        self.app.drain.on_drained(holder.drained)
        self._start_again(taken)
        confirm()

    def _end_terminated(self) -> None:
        """End what runs in a child and shall not go on."""
        for request in self._requests():
            # What ended before it in its child may still have to be answered for; it is not to be ended.
            alone = request.piece is None or request.piece.running is request
            if request.in_child and alone and self.holder.is_terminated(request.delivery):
                request.terminate(self.pool)

    def _start_again(self, taken: list[PondRequest]) -> None:
        """Let tasks that were taken back from a child wait for a slot, before those that came later."""
        waiting = deque(each for each in taken if not each.let_go)
        if not waiting:
            return
        slots, start = self.controller.semaphore, self.controller._process_task
        while waiting and slots.value > 0:
            self.on_task_request(waiting.popleft())
        slots._waiting.extendleft((start, (each,), {}) for each in reversed(waiting))

    # Messages

    def update_strategies(self) -> None:
        """Choose how each kind is received: plain Celery tasks as bodies are."""
        adopt(self.app)
        self._make_way()
        super().update_strategies()

    def create_task_handler(self) -> Callable[[Any], None]:
        """Return what receives a message: Celery's, less the promises that it makes of each."""
        unusual, strategies, callbacks = super().create_task_handler(), self.strategies, self.on_task_message

        def receive(message: Any) -> None:
            headers = message.headers
            strategy = strategies.get(headers.get("task")) if isinstance(headers, dict) else None
            if strategy is None:
                unusual(message)
                return
            reject = partial(self.call_soon_ack, message.reject_log_error)
            try:
                strategy(message, None, message.ack_log_error, reject, callbacks)
            except BadMessage as error:
                self._bury(message, error.reason, error)
            except (InvalidTaskError, ContentDisallowed) as error:
                self.on_invalid_task(None, message, error)
            except DecodeError as error:
                self.on_decode_error(message, error)

        return receive

    @property
    def holder(self) -> Holder:
        """Return what this process has in flight."""
        holder: Holder = self.app.conf.broker_transport_options["holder"]
        return holder

    def _make_way(self) -> None:
        self.holder.announce(self.app.tasks)
        if self.settler is None:
            self.settler = Settler(self.holder, self._settle_finished, self.hub, self._settle_now)
        self.settler.begin_anew()
        if self.pull is None and isinstance(self.pool, ThreadPool):
            self.pull = Pull(self.pool.executor, self.pool.limit)

    def _settle_finished(self) -> None:
        channel = getattr(self.task_consumer, "channel", None)
        if channel is not None:  # else the next one does it first of all
            channel.settle_finished()

    def _settle_now(self) -> None:
        channel = getattr(self.task_consumer, "channel", None)
        if channel is not None:
            channel.settle_now()

    # Messages that cannot be run

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Bury a message whose body cannot be decoded."""
        self._bury(message, "cannot be decoded", exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Bury a message that is no task."""
        self._bury(message, "not a task", "its headers name no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Put aside a task of a kind that this worker does not have, for one that does."""
        outcome = self.app.unknown_kinds.outcome(str(exc.args[0])[:255], message.delivery)
        message.channel.settle(message.delivery, outcome)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury a task whose message cannot be used."""
        self._bury(message, "invalid message", exc)

    def _bury(self, message: Any, reason: str, error: object) -> None:
        logger.error(
            "Message %s buried: %s: %s", message.headers.get("id") if message.headers else "?", reason, error
        )
        message.channel.settle(message.delivery, DeadLetter(reason, str(error)))

    # Stopping

    def on_close(self) -> None:
        """Keep everything after a lost connection: it is held under a lease, and settled on the next
        connection.

        Celery would forget here what had not started, for its brokers deliver it again.
        """
        finish_writing(self.pool)

    def stop(self) -> None:
        """Stop fetching and give back what has not started; what runs goes on."""
        channel = getattr(self.task_consumer, "channel", None)
        if channel is not None:
            channel.holder.draining = True
            self._ignoring_a_lost_broker(channel.finish_turn)
        super().stop()
        finish_writing(self.pool)
        never_given = take_back(self.pool)
        self.grouper.stop()
        read_results_as_they_come(self.pool, meanwhile=self._end_terminated)
        for request in self._requests():
            if not request.started or request.id in never_given:
                request.give_back()
        if channel is not None:
            # From now on nothing starts here: whoever cancels something need not wait for this process.
            self._ignoring_a_lost_broker(channel.acknowledge_all_future)
            if self.pool.uses_semaphore:
                self.listening = ShutdownListener(channel.store, channel.holder)
                self.listening.start()

    def shutdown(self) -> None:
        """Settle what finished, give back the rest, and leave the queues."""
        if self.listening is not None:
            self.listening.stop()
        channel = getattr(self.task_consumer, "channel", None)
        if channel is not None:
            self._ignoring_a_lost_broker(channel.leave)
        super().shutdown()

    def _ignoring_a_lost_broker(self, step: Callable[[], None]) -> None:
        try:
            with translate_errors("leaving the queues"):
                step()
        except BrokerError as error:
            logger.warning("%s What is held comes back when its lease runs out.", error)

    def _requests(self) -> list[PondRequest]:
        known = {*reserved_requests, *requests.values()}
        return [request for request in known if isinstance(request, PondRequest)]
