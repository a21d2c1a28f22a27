"""Find a task by its id: ready, delayed, running, dead, or none of these.

There is no index of tasks, because every task would pay for it. The server searches the messages, a page at a
time.
"""

from dataclasses import dataclass, replace
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.control.acknowledgements import process_of
from millpond.broker.inspect.depth import read_declared_queues
from millpond.broker.inspect.effort import FULL, Effort
from millpond.broker.keys import QueueKeys
from millpond.broker.message import BadMessage, Message
from millpond.broker.scripts import script
from millpond.broker.task_state import TaskState


@dataclass(frozen=True)
class TaskLocation:
    """The state of a task that has not ended, and where its message is.

    Of a `ready` task, `behind` messages of its priority step are fetched before it. A `delayed` task waits
    until `due_ms` at most; if `wants_kind` is True, it was put aside until a process has its kind. A
    `running` task is in flight in the worker process `process`, which runs it or is about to. A `dead` task
    is the dead letter `letter` of its queue.
    """

    id: str
    state: TaskState
    queue: str
    kind: str
    batch: str | None = None
    retries: int = 0
    sent_at_ms: int | None = None
    behind: int | None = None
    due_ms: int | None = None
    process: str | None = None
    letter: str | None = None
    wants_kind: bool = False


def find_task(store: Store, task_id: str, effort: Effort = FULL) -> TaskLocation | None:
    """Return the location of a task.

    Return None if it has ended, was never sent, or is further back in its list than `effort` reads.
    """
    with translate_errors(f"looking for task {task_id}"):
        all_keys = [QueueKeys(queue, store.prefix) for queue in read_declared_queues(store)]
        # During the search a message may move from delayed to ready to in flight, or back. So the delayed and
        # the ready messages are searched twice.
        for find in (_find_delayed, _find_ready, _find_in_flight, _find_dead, _find_delayed, _find_ready):
            for keys in all_keys:
                location = find(store, keys, task_id, effort)
                if location is not None:
                    return location
    return None


def _find_delayed(store: Store, keys: QueueKeys, task_id: str, effort: Effort) -> TaskLocation | None:
    """Return the location of a task among the delayed messages, or None if it is not found."""
    entry = _search_list(store, keys, "delayed", task_id, effort)
    if not entry:
        return None
    location = _make_location(task_id, TaskState.DELAYED, keys, entry[0], due_ms=int(entry[1]))
    return replace(location, wants_kind=store.client.zscore(keys.aside, location.kind) is not None)


def _find_ready(store: Store, keys: QueueKeys, task_id: str, effort: Effort) -> TaskLocation | None:
    """Return the location of a task among the ready messages, or None if it is not found."""
    for step, ready in enumerate(keys.ready, start=1):
        entry = _search_list(store, keys, str(step), task_id, effort)
        if entry is not None:
            behind = max(0, store.client.llen(ready) - int(entry[1]) - 1)
            return _make_location(task_id, TaskState.READY, keys, entry[0], behind=behind)
    return None


def _find_in_flight(store: Store, keys: QueueKeys, task_id: str, _effort: Effort) -> TaskLocation | None:
    """Return the location of a task among the messages in flight, or None if it is not found."""
    for consumer in store.client.zrange(keys.consumers, 0, -1):
        name = consumer.decode()
        _next, *entry = script("find_task").run(store.client, keys.for_scripts, ("held", 0, 0, task_id, name))
        if entry:
            return _make_location(task_id, TaskState.RUNNING, keys, entry[0], process=process_of(name))
    return None


def _find_dead(store: Store, keys: QueueKeys, task_id: str, effort: Effort) -> TaskLocation | None:
    """Return the location of a task among the dead letters, or None if it is not found."""
    entry = _search_list(store, keys, "dead", task_id, effort, first="+")
    return (
        _make_location(task_id, TaskState.DEAD, keys, entry[0], letter=entry[1].decode()) if entry else None
    )


def _search_list(
    store: Store, keys: QueueKeys, list_name: str, task_id: str, effort: Effort, first: str = "0"
) -> list[bytes] | None:
    """Search one list for a task, page by page, from the position `first` on.

    Return None if it is not found, else its message with one more value: its due time in the delayed
    messages, its index in a ready list, its id in the dead letters.
    """
    position: str | bytes = first
    for page in effort.page_sizes():
        position, *entry = script("find_task").run(
            store.client, keys.for_scripts, (list_name, position, page, task_id)
        )
        if entry:
            return list(entry)
        if not position:
            break
    return None


def _make_location(
    task_id: str, state: TaskState, keys: QueueKeys, message: bytes, **details: Any
) -> TaskLocation:
    """Return the location of a message that was found. `details` are further fields for its state.

    Of a message that no worker can decode, `kind` is "".
    """
    try:
        decoded = Message.decode(message)
    except BadMessage:
        return TaskLocation(task_id, state, keys.queue, kind="", **details)
    return TaskLocation(
        id=task_id,
        state=state,
        queue=keys.queue,
        kind=decoded.kind,
        batch=decoded.batch,
        retries=decoded.retries,
        sent_at_ms=decoded.sent_ms,
        **details,
    )
