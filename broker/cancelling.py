"""Cancel tasks and batches: nothing of them is accepted or started any more, and every worker has said so.

A cancellation is kept in Redis, so it survives restarts. Each raises the epoch; a process that holds
messages hears of it (a published word, or its next turn), reads what is cancelled, drops what it has not
started, and writes down the epoch it knows. `cancel` returns when all who hold anything have: from then
on nothing that is cancelled starts.
"""

import time
from dataclasses import dataclass

from broker.connection import Store, clear_errors
from broker.errors import UnknownBatch
from broker.keys import QueueKeys, batch_key, cancelled_key, epoch_key, known_epochs_key
from broker.scripts import script
from broker.status import queues

#: How long a cancellation is remembered: longer than anything waits.
KEPT_MS = 7 * 24 * 3600 * 1000

#: The longest that a living process may take to hear; a dead one is waited for until its lease runs out.
HEARD_SECONDS = 30.0
_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Cancellation:
    """Tell of a cancellation: its epoch, and the processes that had not heard of it in time.

    Empty: all had, and nothing that was cancelled starts any more.
    """

    epoch: int
    unheard: tuple[str, ...]


def cancel_batch(store: Store, batch: str, *, patience_seconds: float = HEARD_SECONDS) -> Cancellation:
    """Cancel what a batch has not started, and close it. Raises `UnknownBatch`."""
    key = batch_key(batch, store.prefix)
    with clear_errors(f"cancelling batch {batch}"):
        epoch = _run(store, key, batch=True)
        if not epoch:
            raise UnknownBatch(
                f"no batch is {batch!r}: look at `millpond batches`, or its record has expired"
            )
        return _heard(store, epoch, patience_seconds)


def cancel_task(store: Store, id: str, *, patience_seconds: float = HEARD_SECONDS) -> Cancellation:
    """Cancel a task that has not started; one that runs is told.

    One that has ended, or never was, is not changed.
    """
    with clear_errors(f"cancelling task {id}"):
        return _heard(store, _run(store, id, batch=False), patience_seconds)


def cancelled(store: Store) -> tuple[int, frozenset[str]]:
    """Return the epoch, and what is cancelled: ids of tasks and record keys of batches."""
    with clear_errors("reading what is cancelled"), store.client.pipeline() as pipe:
        pipe.get(epoch_key(store.prefix)).zrange(cancelled_key(store.prefix), 0, -1)
        epoch, names = pipe.execute()
    return int(epoch or 0), frozenset(name.decode() for name in names)


def hear(store: Store, process: str, epoch: int) -> None:
    """Write down that a process knows all cancellations up to an epoch, and starts nothing of them."""
    key = known_epochs_key(store.prefix)
    with clear_errors("confirming a cancellation"), store.client.pipeline(transaction=False) as pipe:
        pipe.hset(key, process, epoch).pexpire(key, KEPT_MS)
        pipe.execute()


def _run(store: Store, name: str, *, batch: bool) -> int:
    keys = (cancelled_key(store.prefix), epoch_key(store.prefix), name if batch else "")
    return int(script("cancel").run(store.client, keys, (name, KEPT_MS)))


def _heard(store: Store, epoch: int, patience_seconds: float) -> Cancellation:
    deadline = time.monotonic() + patience_seconds
    while (unheard := _unheard(store, epoch)) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return Cancellation(epoch, tuple(sorted(unheard)))


def _unheard(store: Store, epoch: int) -> set[str]:
    """Name the processes that hold messages and know only an earlier epoch."""
    known = {
        name.decode(): int(value)
        for name, value in store.client.hgetall(known_epochs_key(store.prefix)).items()
    }
    return {process for process in _holding(store) if known.get(process, 0) < epoch}


def _holding(store: Store) -> set[str]:
    seconds, _micros = store.client.time()
    found = set()
    for queue in queues(store):
        keys = QueueKeys(queue, store.prefix)
        for consumer in store.client.zrangebyscore(keys.consumers, seconds * 1000, "+inf"):
            if store.client.hlen(keys.held(consumer.decode())):
                found.add(consumer.decode().rpartition(".")[0])
    return found
