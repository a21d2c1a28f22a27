"""Remember the last hour of queues and pools for somebody who looks again and again.

A sample does not change once it is written, so a look reads of Redis what is new since the look before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millpond.broker.connection import Store, clear_errors
from millpond.broker.keys import samples_key
from millpond.broker.stats import history
from millpond.broker.stats.history import Sample

Entries = list[tuple[bytes, Mapping[bytes, bytes]]]


@dataclass(frozen=True)
class _Known:
    """Hold the samples of one queue or pool, and the entry of the stream that the last of them is."""

    last: bytes
    samples: tuple[Sample, ...]


class Past:
    """Return the samples of the last hour, as `samples.history` does. Threads may share one.

    What two of them learn at once is the same, and is put into its place whole.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}

    def of(self, what: Sequence[str]) -> list[tuple[Sample, ...]]:
        """Return the samples of each of `queue:<name>` or `pool:<name>`, the oldest first."""
        known = [self._known.get(name) for name in what]
        found = self._read(what, [each.last.decode() if each else "-" for each in known])
        # A stream that does not hold what was read of it last is another one: it expired, or was dropped.
        again = [
            n
            for n, (each, new) in enumerate(zip(known, found, strict=True))
            if each and not _follows(each, new)
        ]
        for n, whole in zip(again, self._read([what[n] for n in again], ["-"] * len(again)), strict=True):
            known[n], found[n] = None, whole
        return [self._learnt(name, each, new) for name, each, new in zip(what, known, found, strict=True)]

    def _read(self, what: Sequence[str], since: Sequence[str]) -> list[Entries]:
        if not what:
            return []
        with clear_errors("reading the samples"), self._store.client.pipeline(transaction=False) as pipe:
            for name, first in zip(what, since, strict=True):
                pipe.xrange(samples_key(name, self._store.prefix), min=first)
            found: list[Entries] = pipe.execute()
        return found

    def _learnt(self, name: str, known: _Known | None, entries: Entries) -> tuple[Sample, ...]:
        new = entries[1:] if known else entries
        if not entries:
            self._known.pop(name, None)
            return ()
        if known and not new:
            return known.samples
        all_ = (*(known.samples if known else ()), *(history.sample(*entry) for entry in new))
        self._known[name] = _Known(entries[-1][0], all_[-history.KEPT :])
        return self._known[name].samples


def _follows(known: _Known, entries: Entries) -> bool:
    return bool(entries) and entries[0][0] == known.last
