"""The progress that a running task reports."""

from dataclasses import dataclass

from millpond.broker.connection import Store, translate_errors

#: Progress is kept for this long after it was reported.
KEPT_SECONDS = 3600


@dataclass(frozen=True)
class Progress:
    """The progress of a task, in its own units. `total` is None if the task does not know it."""

    done: int
    total: int | None


def report_progress(store: Store, task_id: str, done: int, total: int | None) -> None:
    """Record the progress of a task, in place of what it reported before."""
    with translate_errors("reporting progress"):
        store.client.set(
            _progress_key(store, task_id), f"{done}/{'' if total is None else total}", ex=KEPT_SECONDS
        )


def read_progress(store: Store, task_id: str) -> Progress | None:
    """Return the progress of a task, or None if it reported none within the last hour."""
    with translate_errors(f"reading the progress of task {task_id}"):
        stored = store.client.get(_progress_key(store, task_id))
    if stored is None:
        return None
    done, _, total = stored.decode().partition("/")
    return Progress(int(done), int(total) if total else None)


def _progress_key(store: Store, task_id: str) -> str:
    return f"{store.prefix}millpond:progress:{task_id}"
