"""The share of one process in its pool's windows, sent by heartbeat: figures by kind, the time of slots.

The slots of threads are sampled in this process. A prefork child samples itself and writes its samples beside
the other metrics of this host, where its parent reads them: a killed child loses a second of its samples at
most.
"""

import threading
from collections import Counter, deque
from collections.abc import Mapping

from celery import Celery, signals

from millpond.broker.connection import Store
from millpond.broker.stats import window
from millpond.tasks.process.metrics_file import MetricsFile, read_metrics
from millpond.worker.report import span_peers
from millpond.worker.report.slot_sampler import RUNNING, SlotSampler

#: A child writes once in this many seconds.
WRITE_SECONDS = 1.0
#: The maximum of places that a child remembers: a handler may call a new peer each time.
MOST_KEPT = 2_000


class SlotTimes:
    """Gathers the fields of one process, and keeps them until they were sent."""

    def __init__(self, pid: int, *, samples: bool) -> None:
        self._pid = pid
        self._unsent: Counter[str] = Counter()
        self._children: dict[int, Counter[str]] = {}
        self._sampler = SlotSampler(RUNNING) if samples else None
        if self._sampler is not None:
            self._sampler.start()

    def add_counts(self, added: Mapping[str, int], errors: "deque[tuple[str, str]]") -> None:
        """Add the counts and the errors of the task metrics, and the samples taken meanwhile."""
        self._unsent.update(window.window_fields(added))
        while errors:
            self._unsent[window.error_field(*errors.popleft())] += 1
        if self._sampler is not None:
            span_peers.note_client_peers()
            self._unsent.update(_window_fields(self._sampler))
            self._add_child_samples()

    def send_to_window(self, store: Store, pool: str) -> None:
        """Add all that is unsent to the pool's present window."""
        window.add_to_window(store, pool, self._unsent)
        self._unsent.clear()

    def _add_child_samples(self) -> None:
        """Add the samples that prefork children have written since the last time."""
        children: dict[int, Counter[str]] = {}
        for said in read_metrics(self._pid):
            now = Counter({str(name): int(value) for name, value in said.get("places", {}).items()})
            children[said["pid"]] = now
            self._unsent.update(now - self._children.get(said["pid"], Counter()))
        self._children = children


def _window_fields(sampler: SlotSampler) -> Counter[str]:
    """Return the samples and the calls since the last call, as fields of a window."""
    places = Counter({window.place_field(place): micros for place, micros in sampler.take_samples().items()})
    return places + sampler.take_calls()


def keep_places(places: Counter[str], new: Counter[str]) -> None:
    """Add new samples to a child's sums. With too many places, the sums begin again.

    The parent then misses a second of the places that it had seen before.
    """
    if len(places) > MOST_KEPT:
        places.clear()
    places.update(new)


def _sample_in_child(**_: object) -> None:
    """Sample the slot of a prefork child for as long as it lives."""

    def write() -> None:
        """Write the child's samples to its metrics file until the child ends."""
        places: Counter[str] = Counter()
        while not stop.wait(WRITE_SECONDS):
            span_peers.note_client_peers()
            new = _window_fields(sampler)
            keep_places(places, new)
            if new:
                file.write({"places": places})

    sampler, file, stop = SlotSampler(RUNNING), MetricsFile(), threading.Event()
    sampler.start()
    threading.Thread(target=write, name="millpond-slot-times", daemon=True).start()


def install(app: Celery, *, samples: bool) -> None:
    """Sample in the prefork children of this application's workers, unless it is switched off."""
    if samples:
        app.slot_times = _sample_in_child  # signals keep weak references
        signals.worker_process_init.connect(_sample_in_child)
