"""Tell worker processes what all of them must know: what is cancelled, and which pools are drained.

It is kept in Redis, so it survives restarts. Each change raises one number, the epoch; a process hears of
it (a published word, or its next turn), reads it all anew, acts on it, and writes down the epoch that it
knows. So whoever changed something can wait until all have heard: broker/control/acknowledgements.py.
"""

from dataclasses import dataclass

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import cancelled_key, drained_key, epoch_key, known_epochs_key, terminated_key

#: How long what processes have heard is kept after the last of them did.
_KEPT_MS = 7 * 24 * 3600 * 1000

#: What a process has heard that will start nothing any more.
ALL_FUTURE = 2**53


@dataclass(frozen=True)
class ControlState:
    """Hold the epoch, and what holds by it.

    `cancelled` and `terminated`, which is also ended where it runs, name tasks by their ids and batches by
    the keys of their records; `drained` names pools.
    """

    epoch: int = 0
    cancelled: frozenset[str] = frozenset()
    terminated: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()


def read(store: Store) -> ControlState:
    """Return what holds now."""
    with translate_errors("reading what is cancelled and drained"), store.client.pipeline() as pipe:
        pipe.get(epoch_key(store.prefix))
        pipe.zrange(cancelled_key(store.prefix), 0, -1).zrange(terminated_key(store.prefix), 0, -1)
        pipe.hkeys(drained_key(store.prefix))
        epoch, *names = pipe.execute()
    cancelled, terminated, drained = (frozenset(name.decode() for name in found) for found in names)
    return ControlState(int(epoch or 0), cancelled, terminated, drained)


def acknowledge(store: Store, process: str, epoch: int) -> None:
    """Write down that a process knows everything up to an epoch, and starts nothing against it."""
    key = known_epochs_key(store.prefix)
    with translate_errors("confirming what was heard"), store.client.pipeline(transaction=False) as pipe:
        pipe.hset(key, process, epoch).pexpire(key, _KEPT_MS)
        pipe.execute()


def forget(store: Store, process: str) -> None:
    """Drop what a process has heard, once it is gone."""
    with translate_errors("leaving"):
        store.client.hdel(known_epochs_key(store.prefix), process)
