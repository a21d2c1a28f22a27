"""The control state that every worker process must know: cancelled tasks and batches, drained pools.

It is kept in Redis, so it survives restarts. Each change raises a number, the epoch, and publishes it. A
process receives the new epoch by the channel or with its next fetch, reads the changes since the epoch that
it knows, acts on them and acknowledges the epoch. `acknowledgements.py` waits for that.

A process reads the whole state at its start, and later only the list of the latest cancellations. If the
epochs of the list have a gap, as after a drain or a cancellation by an older client, it reads the whole state
again.
"""

from collections.abc import Collection, Set
from dataclasses import dataclass

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import (
    cancellations_key,
    cancelled_key,
    drained_key,
    epoch_key,
    known_epochs_key,
    terminated_key,
)

#: The length of the list of the latest cancellations.
LATEST = 1_000
#: The whole state is read again after this many changes, so that a process forgets expired cancellations.
READ_AGAIN_AFTER = 50_000

#: The acknowledgements are kept for this long after the last one.
_KEPT_MS = 7 * 24 * 3600 * 1000

#: The epoch that a process acknowledges when it starts nothing any more: it covers all future changes.
ALL_FUTURE = 2**53


@dataclass(frozen=True)
class ControlState:
    """The control state at an epoch.

    `cancelled` has ids of tasks and keys of the records of batches. `terminated` is the part of it whose
    running tasks are terminated. Later states of one process share these two sets and add to them. `drained`
    has names of pools.
    """

    epoch: int = 0
    cancelled: Set[str] = frozenset()
    terminated: Set[str] = frozenset()
    drained: frozenset[str] = frozenset()
    #: The epoch at which the whole state was read.
    read_at: int = 0
    #: The latest cancellation, as it is stored in the list. If the server has another one under this epoch,
    #: it has forgotten changes, and the whole state is read again.
    last: str = ""


def read_state(store: Store, known: ControlState | None = None) -> ControlState:
    """Return the present control state.

    If an earlier state is `known`, only the changes since then are read where that is possible.
    """
    if known is not None and known.epoch:
        later = _read_changes(store, known)
        if later is not None:
            return later
    with store.pipeline("reading the control state", atomic=True) as pipe:
        pipe.get(epoch_key(store.prefix))
        pipe.zrange(cancelled_key(store.prefix), 0, -1).zrange(terminated_key(store.prefix), 0, -1)
        pipe.hkeys(drained_key(store.prefix)).lindex(cancellations_key(store.prefix), -1)
        stored_epoch, *groups, last = pipe.execute()
    cancelled, terminated, drained = ({name.decode() for name in names} for names in groups)
    epoch = int(stored_epoch or 0)
    return ControlState(epoch, cancelled, terminated, frozenset(drained), epoch, (last or b"").decode())


def _read_changes(store: Store, known: ControlState) -> ControlState | None:
    """Return a known state with the cancellations that came after it.

    Return None if the list of the latest does not have all of them, or if the whole state was last read more
    than `READ_AGAIN_AFTER` changes ago.
    """
    with translate_errors("reading the control state"):
        epoch = int(store.client.get(epoch_key(store.prefix)) or 0)
        later = epoch - known.epoch
        if not 0 <= later <= LATEST or epoch - known.read_at > READ_AGAIN_AFTER:
            return None
        if not later:
            return known
        # A few more entries are read, because cancellations may be added to the list after the epoch was
        # read.
        entries = store.client.lrange(cancellations_key(store.prefix), -later - 16, -1)
    by_epoch = {int(entry.split(b" ", 1)[0]): entry.decode() for entry in entries}
    has_all = all(number in by_epoch for number in range(known.epoch, epoch + 1))
    if not has_all or by_epoch[known.epoch] != known.last:
        return None
    new = [entry.split(" ", 2) for number, entry in by_epoch.items() if number > known.epoch]
    cancelled, terminated = _as_mutable(known.cancelled), _as_mutable(known.terminated)
    cancelled.update(name for _epoch, _flag, name in new)
    terminated.update(name for _epoch, flag, name in new if flag == "1")
    return ControlState(epoch, cancelled, terminated, known.drained, known.read_at, by_epoch[epoch])


def _as_mutable(names: Set[str]) -> set[str]:
    """Return the given set if it can be changed, else a copy that can."""
    return names if isinstance(names, set) else set(names)


def find_cancelled(store: Store, names: Collection[str]) -> frozenset[str]:
    """Return which of these tasks (ids) and batches (keys of their records) are cancelled."""
    if not names:
        return frozenset()
    with translate_errors("reading which tasks are cancelled"):
        times = store.client.zmscore(cancelled_key(store.prefix), list(names))
    return frozenset(name for name, at in zip(names, times, strict=True) if at is not None)


def acknowledge_epoch(store: Store, process: str, epoch: int) -> None:
    """Record that a process knows and obeys the control state of an epoch."""
    key = known_epochs_key(store.prefix)
    with store.pipeline("acknowledging the control state") as pipe:
        pipe.hset(key, process, epoch).pexpire(key, _KEPT_MS)
        pipe.execute()


def forget_process(store: Store, process: str) -> None:
    """Remove the acknowledgement of a process that has ended."""
    with translate_errors("removing an acknowledgement"):
        store.client.hdel(known_epochs_key(store.prefix), process)
