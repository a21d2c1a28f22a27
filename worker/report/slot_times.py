"""Gather the part of one process in its pool's windows: figures by kind, and where slots spent time.

Threads are sampled in this process. A prefork child samples itself, and writes its samples to a metrics file,
which its parent reads. A killed child loses the samples of a second at most. The heartbeat sends the figures.
"""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping

from celery import Celery, signals

from millpond.broker.connection import Store
from millpond.broker.stats import window
from millpond.worker.report import span_peers
from millpond.worker.report.metrics_file import MetricsFile, read_metrics
from millpond.worker.report.slot_sampler import RUNNING, SlotSampler

#: The time between two writes of a child's samples.
WRITE_SECONDS = 1.0

#: The maximum of places in a child's sums. A handler may call another peer each time.
MOST_KEPT = 2_000


class SlotTimes:
    """Gathers the fields of one process for its pool's window, and keeps them until they are sent."""

    def __init__(self, *, samples: bool) -> None:
        self._unsent: Counter[str] = Counter()
        self._children: dict[int, Counter[str]] = {}
        self._sampler = SlotSampler(RUNNING) if samples else None
        if self._sampler is not None:
            self._sampler.start()

    def add_counts(self, added: Mapping[str, int], errors: "deque[tuple[str, str]]") -> None:
        """Add counts of tasks, the errors of dead letters, and the samples since the last call.

        The errors are removed from the queue.
        """
        self._unsent.update(window.window_fields(added))
        while errors:
            self._unsent[window.error_field(*errors.popleft())] += 1
        if self._sampler is not None:
            span_peers.record_client_peers()
            self._unsent.update(_window_fields(self._sampler))
            self._add_child_samples()

    def send_to_window(self, store: Store, pool: str) -> None:
        """Add the gathered fields to the pool's present window in Redis. Raises `BrokerError`."""
        window.add_to_window(store, pool, self._unsent)
        self._unsent.clear()

    def _add_child_samples(self) -> None:
        """Add the samples that prefork children have written since the last call."""
        children: dict[int, Counter[str]] = {}
        for record in read_metrics(os.getpid()):
            sums = Counter({str(name): int(value) for name, value in record.get("places", {}).items()})
            children[record["pid"]] = sums
            self._unsent.update(sums - self._children.get(record["pid"], Counter()))
        self._children = children


def _window_fields(sampler: SlotSampler) -> Counter[str]:
    """Return the samples and the calls since the last call of this function, as fields of a window."""
    places = Counter({window.place_field(place): micros for place, micros in sampler.take_samples().items()})
    return places + sampler.take_calls()


def add_samples(places: Counter[str], new: Counter[str]) -> None:
    """Add new samples to a child's sums. Sums of more than `MOST_KEPT` places begin again at zero.

    The parent then misses the samples of a second, at places that it has read before.
    """
    if len(places) > MOST_KEPT:
        places.clear()
    places.update(new)


def _sample_in_child(**_: object) -> None:
    """Start to sample the slot of this prefork child, and to write the samples to its metrics file."""

    def write_samples() -> None:
        """Write the sums of the samples every `WRITE_SECONDS`, for as long as the child lives."""
        places: Counter[str] = Counter()
        while True:
            time.sleep(WRITE_SECONDS)
            span_peers.record_client_peers()
            new = _window_fields(sampler)
            add_samples(places, new)
            if new:
                file.write({"places": places})

    sampler, file = SlotSampler(RUNNING), MetricsFile()
    sampler.start()
    threading.Thread(target=write_samples, name="millpond-slot-times", daemon=True).start()


def install(app: Celery, *, samples: bool) -> None:
    """Make the prefork children of this application's workers sample their slots, if `samples`."""
    if samples:
        app.slot_times = _sample_in_child  # signals keep weak references
        signals.worker_process_init.connect(_sample_in_child)
