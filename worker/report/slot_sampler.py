"""Sample how the slots of a process spend their time, a few times a second. Handlers need no change.

A thread of its own takes a sample of each slot that runs a task. The clock of the slot's thread shows how
long it ran and how long it waited for a processor since the last sample. For the rest of the time the kernel
shows what the slot waits for (thread_activity.py), and its Python stack shows the library that waits and the
line of the handler that called it (waiting_place.py). The heartbeat takes the sums.
"""

import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from types import FrameType

from millpond.broker.stats.calls import add_connection, add_wait
from millpond.broker.stats.window import RESULTS, Place
from millpond.worker.report import recorded_calls
from millpond.worker.report.recorded_calls import CALLED_PEERS
from millpond.worker.report.thread_activity import (
    Activity,
    Clock,
    RoundTrips,
    child_pids,
    is_computing,
    other_threads_compute,
    read_activity,
    thread_clock,
)
from millpond.worker.report.waiting_place import RUNNING_NOW, find_place, waits_in_c

#: The number of samples a second.
SAMPLES_PER_SECOND = 5.0

#: The maximum of different places between two heartbeats. The time of further places is counted as `others`.
MOST_PLACES = 40

#: The maximum of connections whose last round trips are kept.
MOST_CONNECTIONS = 500

#: The maximum of fields of calls between two heartbeats.
MOST_CALLS = 200

#: The categories of waits that may be for the peer that a handler or a span names.
NAMED_BY_HANDLERS = ("peer", "sleep", "lock", "file", "child", "thread", "unknown")

_MICROS = 1_000_000


#: The kind that each slot of this process runs, by the ident of its thread. Slots write it.
RUNNING: dict[int, str] = {}


def _current_frames() -> dict[int, FrameType]:
    """Return the current frame of each other thread, by its ident.

    The frame of the caller is left out. It would refer to the returned dictionary, and so to itself: all
    frames, with the data of tasks that have ended, would stay in memory until garbage is collected.

    Garbage is not collected during the call. Before Python 3.11.8 and 3.12.1 the call holds a lock that the
    end of a `threading.local` takes too, so a collection could stop the process for good (gh-106883).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        frames = sys._current_frames()
    finally:
        if was_enabled:
            gc.enable()
    del frames[threading.get_ident()]
    return frames


@dataclass(slots=True)
class _Sample:
    """The last sample of a thread: its time, and the thread's clock at that time."""

    at: float
    clock: Clock | None


class SlotSampler:
    """Samples the slots of one process. `running` maps the idents of threads to the kinds that they run."""

    def __init__(self, running: Mapping[int, str]) -> None:
        self._running = running
        self._last_samples: dict[int, _Sample] = {}
        #: The idents of all threads that were slots.
        self._slots: set[int] = set()
        self._places: Counter[Place] = Counter()
        #: The microseconds that slots waited before a sample that found them on a processor, by the place at
        #: which they are taken to have waited if no other sample finds them waiting.
        self._unseen: Counter[Place] = Counter()
        #: The time and the round trips of each connection at its last sample, by its number.
        self._connections: dict[int, tuple[float, int]] = {}
        self._calls: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that takes samples, unless it runs, and the recording of handlers' calls."""
        if self._thread is None:
            recorded_calls.RECORDING["on"] = True
            self._thread = threading.Thread(
                target=self._sample_until_stopped, name="millpond-slots", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Stop taking samples."""
        self._stop.set()

    def take_samples(self) -> Counter[Place]:
        """Return the microseconds spent in each place since the last call."""
        with self._lock:
            places, self._places = self._places, Counter()
            unseen, self._unseen = self._unseen, Counter()
        return _add_unseen_waits(places, unseen)

    def take_calls(self) -> Counter[str]:
        """Return the calls of handlers since the last time, as fields of a window.

        They are the round trips that the samples have seen, and the calls that handlers have recorded.
        """
        with self._lock:
            calls, self._calls = self._calls, Counter()
        return calls + recorded_calls.take_recorded_calls()

    def sample_slots(self) -> None:
        """Take one sample of each slot that runs a task, and add the time since its last one to its place."""
        running = dict(self._running)
        self._slots |= running.keys()
        other_work = _OtherWork(self._slots)
        frames = _current_frames()
        tids = {
            thread.ident: _kernel_id(thread) for thread in threading.enumerate() if thread.ident in running
        }
        for ident, kind in running.items():
            tid, frame = tids.get(ident), frames.get(ident)
            if tid is not None and frame is not None:
                self._sample_slot(ident, kind, tid, frame, other_work)
        for ident in self._last_samples.keys() - running.keys():
            del self._last_samples[ident]

    def _sample_until_stopped(self) -> None:
        """Take samples several times a second until `stop` is called."""
        while not self._stop.wait(1 / SAMPLES_PER_SECOND):
            self.sample_slots()

    def _sample_slot(
        self, ident: int, kind: str, tid: int, frame: FrameType, other_work: "_OtherWork"
    ) -> None:
        """Add the time since the last sample of a slot: on a processor, waiting for one, and at a place.

        The first sample of a slot adds nothing.
        """
        now, clock = time.monotonic(), thread_clock(tid)
        last = self._last_samples.get(ident)
        self._last_samples[ident] = _Sample(now, clock)
        if last is None:
            return
        passed = now - last.at
        ran = waited = 0.0
        if clock is not None and last.clock is not None:
            ran = min(passed, max(0.0, clock.ran - last.clock.ran))
            waited = min(passed - ran, max(0.0, clock.waited - last.clock.waited))
        activity = read_activity(tid)
        place = self._place_of_slot(ident, kind, tid, frame, activity, other_work)
        with self._lock:
            if activity.trips is not None and place.category == "peer" and place.name != RESULTS:
                self._add_round_trips(place, activity.trips, now)
            self._add_seconds(Place("processor", kind=kind), ran)
            self._add_seconds(Place("runnable", kind=kind), waited)
            if activity.category in RUNNING_NOW:
                self._unseen[place] += max(0, int((passed - ran - waited) * _MICROS))
            else:
                self._add_seconds(place, passed - ran - waited)

    def _place_of_slot(
        self, ident: int, kind: str, tid: int, frame: FrameType, activity: Activity, other_work: "_OtherWork"
    ) -> Place:
        """Return the place of a slot: the peer that its handler names, or else what the kernel shows.

        A slot that waits for another thread or a child program that computes is on a processor.
        """
        place = find_place(kind, activity, frame, others_run=len(self._running) > 1)
        peer = CALLED_PEERS.get(ident)
        if peer is not None and place.category in NAMED_BY_HANDLERS:
            place = replace(place, category="peer", name=peer)
        if helper := _computing_helper(activity, place, frame, tid, other_work):
            return Place("processor", helper, kind=kind)
        return place

    def _add_round_trips(self, peer: Place, trips: RoundTrips, now: float) -> None:
        """Add the round trips of a connection since its last sample, and how long it has waited now."""
        number, count, waited_ms = trips
        if len(self._calls) > MOST_CALLS:
            return
        before = self._connections.pop(number, None)
        self._connections[number] = now, count  # in the order of the last samples
        if len(self._connections) > MOST_CONNECTIONS:
            self._connections.pop(next(iter(self._connections)))
        add_wait(self._calls, peer.kind, peer.name, waited_ms)
        if before is None or count < before[1]:
            add_connection(self._calls, peer.kind, peer.name, count, None)
        else:
            add_connection(self._calls, peer.kind, peer.name, count - before[1], now - before[0])

    def _add_seconds(self, place: Place, seconds: float) -> None:
        """Add time to a place, or to `others` of its category if there are `MOST_PLACES` places."""
        if seconds <= 0:
            return
        if place not in self._places and len(self._places) >= MOST_PLACES:
            place = Place(place.category, "others", kind=place.kind)
        self._places[place] += int(seconds * _MICROS)


def _add_unseen_waits(places: Counter[Place], unseen: Counter[Place]) -> Counter[Place]:
    """Return the microseconds by place, with the waits during which no sample was taken.

    These are divided among the places at which slots of the same kind were seen waiting. If there is none,
    they count for the place in `unseen`.
    """
    all_places = Counter(places)
    for likely, micros in unseen.items():
        candidates = {place: spent for place, spent in places.items() if _may_be_unseen(place, likely)}
        candidates = candidates or {likely: 1}
        total = sum(candidates.values())
        for place, spent in candidates.items():
            all_places[place] += micros * spent // total
    return all_places


def _may_be_unseen(place: Place, likely: Place) -> bool:
    """True if a wait that was not seen, for which `likely` is assumed, may have been at `place`.

    A single slot waits for the interpreter only because a sample is taken.
    """
    if place.kind != likely.kind or (place.category in RUNNING_NOW and not place.name):
        return False
    return place.category != "interpreter" or likely.category == "interpreter"


class _OtherWork:
    """Whether threads and programs beside the slots compute.

    It is read once for all slots, if one needs it.
    """

    def __init__(self, slots: Set[int]) -> None:
        self._slots = slots

    @cached_property
    def threads_compute(self) -> bool:
        """True if a thread of handlers or of a C library computes."""
        return other_threads_compute(self._slots)

    @cached_property
    def programs_compute(self) -> bool:
        """True if a child program of the process computes."""
        return any(map(is_computing, child_pids()))


def _computing_helper(
    activity: Activity, place: Place, frame: FrameType, tid: int, other_work: _OtherWork
) -> str:
    """Return the name of the child programs or threads that a slot waits for and that compute, or "".

    A slot that waits for other threads, or at a lock inside C code, may wait for any thread, and the former
    also for any child of the process.
    """
    if place.category in ("child", "sleep"):
        return "child programs" if any(map(is_computing, _awaited_children(frame, tid))) else ""
    if place.category == "thread" and other_work.programs_compute:
        return "child programs"
    may_await_threads = place.category == "thread" or (activity.category == "lock" and waits_in_c(frame))
    return "threads of handlers" if may_await_threads and other_work.threads_compute else ""


def _awaited_children(frame: FrameType | None, tid: int) -> list[int]:
    """Return the process ids of the child programs that a slot waits for.

    It is the program of the `subprocess` or `multiprocessing` call in its stack, or else all programs that
    the slot's thread (`tid`) has started.
    """
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(("subprocess", "multiprocessing.popen_")):
            program = frame.f_locals.get("self", frame.f_locals.get("process"))
            if isinstance(pid := getattr(program, "pid", None), int):
                return [pid]
        frame = frame.f_back
    return child_pids(tid)


def _kernel_id(thread: threading.Thread) -> int | None:
    """Return the kernel's id of a thread. That of the main thread is the process id.

    After a fork, Python's own `native_id` of the main thread is that of the parent.
    """
    return os.getpid() if thread is threading.main_thread() else thread.native_id
