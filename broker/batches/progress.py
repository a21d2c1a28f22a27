"""Keep how far a running task got, for whoever watches it."""

from dataclasses import dataclass

from millpond.broker.connection import Store, translate_errors

#: A report is forgotten this long after it was made.
KEPT_SECONDS = 3600


@dataclass(frozen=True)
class Progress:
    """Say how far a task got, in units of its own; `total` None: it does not know."""

    done: int
    total: int | None


def report(store: Store, task_id: str, done: int, total: int | None) -> None:
    """Write down how far a task got."""
    with translate_errors("reporting progress"):
        store.client.set(_key(store, task_id), f"{done}/{'' if total is None else total}", ex=KEPT_SECONDS)


def progress(store: Store, task_id: str) -> Progress | None:
    """Return how far a task got; None where it has not said, or not lately."""
    with translate_errors(f"reading the progress of task {task_id}"):
        found = store.client.get(_key(store, task_id))
    if found is None:
        return None
    done, _, total = found.decode().partition("/")
    return Progress(int(done), int(total) if total else None)


def _key(store: Store, task_id: str) -> str:
    return f"{store.prefix}millpond:progress:{task_id}"
