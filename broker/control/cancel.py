"""Cancel tasks and batches.

In this order: mark the task or batch in Redis, so that nothing of it is accepted or started any more; wait
until every process with messages in flight has acknowledged, which it does after it has dropped the cancelled
tasks that it had not started; settle the ready and delayed messages as cancelled. The context of a running
task shows the cancellation. The task is terminated if that was requested and its pool is `prefork`.
"""

from dataclasses import dataclass

from millpond.broker.connection import Store, translate_errors
from millpond.broker.control.acknowledgements import ACK_TIMEOUT_SECONDS, wait_for_acknowledgements
from millpond.broker.control.cancel_waiting import FULL_IN_SHORT_CALLS, cancel_waiting
from millpond.broker.control.state import LATEST
from millpond.broker.errors import UnknownBatch
from millpond.broker.inspect import task_lookup
from millpond.broker.inspect.effort import Effort
from millpond.broker.inspect.task_lookup import TaskLocation
from millpond.broker.keys import batch_key, cancellations_key, cancelled_key, epoch_key, terminated_key
from millpond.broker.scripts import script
from millpond.broker.server import server_time_ms
from millpond.broker.task_state import TaskState

#: A cancellation is kept for this long: a message that no search reached is dropped when it is fetched.
KEPT_MS = 7 * 24 * 3600 * 1000

#: The cancellation of a task that was not found is kept for this long, because it may just be being sent.
KEPT_UNKNOWN_MS = 3600 * 1000


@dataclass(frozen=True)
class Cancellation:
    """The result of a cancellation. `epoch` is its control epoch, 0 if the task is a dead letter.

    `unacknowledged` names the processes that did not acknowledge it in time. If it is empty, no cancelled
    task starts any more. `settled` counts the ready and delayed messages that were settled as cancelled.
    `found` is where the task was. It is None for a batch, and for a task that has ended or was never sent.
    """

    epoch: int
    unacknowledged: tuple[str, ...]
    settled: int = 0
    found: TaskLocation | None = None


def cancel_batch(
    store: Store,
    batch: str,
    *,
    terminate: bool = False,
    timeout_seconds: float = ACK_TIMEOUT_SECONDS,
) -> Cancellation:
    """Cancel the tasks of a batch that have not started, and close it. Raises `UnknownBatch`.

    With `terminate`, its running tasks are terminated if the pool is `prefork`. The waiting messages are
    searched until the batch has no pending task. A message that the search misses, because it moves between
    lists meanwhile, is settled when it is fetched.
    """
    key = batch_key(batch, store.prefix)
    with translate_errors(f"cancelling batch {batch}"):
        epoch = _mark_cancelled(store, key, is_batch=True, terminate=terminate)
        if not epoch:
            raise UnknownBatch(batch)
        unacknowledged = wait_for_acknowledgements(store, epoch, timeout_seconds)
        return Cancellation(epoch, unacknowledged, cancel_waiting(store, FULL_IN_SHORT_CALLS, batch=batch))


def cancel_task(
    store: Store,
    task_id: str,
    *,
    terminate: bool = False,
    timeout_seconds: float = ACK_TIMEOUT_SECONDS,
    effort: Effort = FULL_IN_SHORT_CALLS,
) -> Cancellation:
    """Cancel a task: a waiting task never starts, and a running task is asked to stop, or terminated.

    A task that has ended and a dead letter are not changed. Waiting messages are searched with this `effort`.
    A message that the search does not reach is settled when it is fetched.
    """
    with translate_errors(f"cancelling task {task_id}"):
        location = task_lookup.find_task(store, task_id, effort)
        if location is not None and location.state is TaskState.DEAD:
            return Cancellation(0, (), found=location)
        epoch = _mark_cancelled(store, task_id, is_batch=False, terminate=terminate)
        unacknowledged = wait_for_acknowledgements(store, epoch, timeout_seconds)
        settled = cancel_waiting(store, effort, task_id=task_id)
        if location is None and not settled and effort.max_count is None:
            _shorten_cancellation(store, task_id)
        return Cancellation(epoch, unacknowledged, settled, location)


def _shorten_cancellation(store: Store, task_id: str) -> None:
    """Keep the cancellation of a task that was not found for `KEPT_UNKNOWN_MS` only."""
    with store.client.pipeline(transaction=False) as pipe:
        for key in (cancelled_key(store.prefix), terminated_key(store.prefix)):
            pipe.zadd(key, {task_id: server_time_ms(store) + KEPT_UNKNOWN_MS}, xx=True)
        pipe.execute()


def _mark_cancelled(store: Store, id_or_key: str, *, is_batch: bool, terminate: bool) -> int:
    """Mark a task (its id) or a batch (the key of its record) as cancelled, and return the control epoch.

    Return 0 if there is no such batch.
    """
    prefix = store.prefix
    cancelled = cancelled_key(prefix)
    record = id_or_key if is_batch else cancelled
    keys = (cancelled, epoch_key(prefix), record, terminated_key(prefix), cancellations_key(prefix))
    return int(script("cancel").run(store.client, keys, (id_or_key, KEPT_MS, int(terminate), LATEST)))
