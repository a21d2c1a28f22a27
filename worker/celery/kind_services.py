"""The objects and settings that all requests of one kind use: read once for a kind, not for each task."""

import logging
from typing import Any

from celery import Task

from millpond.broker.celery.request import make_immediate_writer
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.worker.dispatch.chunks import Chunks
from millpond.worker.dispatch.thread_pool import ThreadSlots

logger = logging.getLogger(__name__)


class KindServices:
    """What the requests of one kind share in one worker process. `consumer` is its `PondConsumer`."""

    def __init__(self, consumer: Any, task: Task) -> None:
        self.app, self.hostname, self.eventer = consumer.app, consumer.hostname, consumer.event_dispatcher
        self.in_flight: InFlightMessages = consumer.in_flight
        self.chunks: Chunks = consumer.chunks
        self.threads: ThreadSlots | None = consumer.threads
        #: True once it was logged that threads do not keep the time limits of a call.
        self.limits_logged = False
        self.sends_events = bool(self.eventer and self.eventer.enabled and task.send_events)
        #: For `worker_deduplicate_successful_tasks`, Celery keeps the ids of tasks that succeeded.
        self.remembers_successes = bool(consumer.app.conf.worker_deduplicate_successful_tasks)
        #: The hooks of middleware at an outcome. `app.hooks` is a pair, without and with the tracing
        #: middleware: the second is used once OpenTelemetry's SDK is imported in this process.
        self.outcome_hooks = tuple(hooks.on_outcome for hooks in consumer.app.hooks)
        #: The hooks that choose the tasks whose events are sent. Either of the pair will do: the tracing
        #: middleware does not choose events.
        self.event_hooks = consumer.app.hooks[0].shows_events
        #: Writes the next task of the pool to a free prefork child now, if there is one.
        self.write_at_once = make_immediate_writer(consumer.pool, consumer.hub)

    def on_limits_of_call(self, name: str, task_id: str) -> None:
        """Log for the first task that was sent with time limits that threads do not keep them."""
        if self.threads is not None and not self.limits_logged:
            self.limits_logged = True
            logger.warning(
                "Task %s[%s] was sent with a time limit, which is not kept: this pool has threads, which "
                "cannot be killed (logged once for each task's name)",
                name,
                task_id,
            )
