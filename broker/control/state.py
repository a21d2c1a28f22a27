"""The control state that every worker process must know: cancelled tasks and batches, drained pools.

It is kept in Redis, so it survives restarts. Each change raises a number, the epoch, and publishes it. A
process learns of the new epoch from the channel or from its next fetch, reads the whole state, acts on it
and acknowledges the epoch. `acknowledgements.py` waits for that.
"""

from dataclasses import dataclass

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import cancelled_key, drained_key, epoch_key, known_epochs_key, terminated_key

#: The acknowledgements are kept for so long after the last one.
_KEPT_MS = 7 * 24 * 3600 * 1000

#: The epoch of a process that starts nothing any more: it acknowledges all future changes.
ALL_FUTURE = 2**53


@dataclass(frozen=True)
class ControlState:
    """The control state at an epoch.

    `cancelled` has ids of tasks and keys of the records of batches. `terminated` is the part of it whose
    running tasks are terminated. `drained` has names of pools.
    """

    epoch: int = 0
    cancelled: frozenset[str] = frozenset()
    terminated: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()


def read(store: Store) -> ControlState:
    """Return the present control state."""
    with translate_errors("reading the control state"), store.client.pipeline() as pipe:
        pipe.get(epoch_key(store.prefix))
        pipe.zrange(cancelled_key(store.prefix), 0, -1).zrange(terminated_key(store.prefix), 0, -1)
        pipe.hkeys(drained_key(store.prefix))
        epoch, *names = pipe.execute()
    cancelled, terminated, drained = (frozenset(name.decode() for name in found) for found in names)
    return ControlState(int(epoch or 0), cancelled, terminated, drained)


def acknowledge(store: Store, process: str, epoch: int) -> None:
    """Record that a process acts on the control state of an epoch."""
    key = known_epochs_key(store.prefix)
    with (
        translate_errors("acknowledging the control state"),
        store.client.pipeline(transaction=False) as pipe,
    ):
        pipe.hset(key, process, epoch).pexpire(key, _KEPT_MS)
        pipe.execute()


def forget(store: Store, process: str) -> None:
    """Remove the acknowledgement of a process that has ended."""
    with translate_errors("removing an acknowledgement"):
        store.client.hdel(known_epochs_key(store.prefix), process)
