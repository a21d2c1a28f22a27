"""Sample how the slots of a process spend their time, a few times a second, without a change of a handler.

A thread looks at each slot that runs a task: its clock has the time that it ran and that it waited for a
processor since the last look. For the rest of that time the kernel names the cause that blocks the slot
(blocking.py), and the slot's Python stack names the library that waits and the line of the handler that
called it. The heartbeat takes the sums.
"""

import gc
import linecache
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from types import FrameType

from millpond.broker.stats.calls import add_connection, add_wait
from millpond.broker.stats.window import RESULTS, Place
from millpond.worker.report import noted_calls
from millpond.worker.report.blocking import (
    Blocked,
    Clock,
    RoundTrips,
    blocked_on,
    child_programs,
    is_computing,
    other_threads_compute,
    thread_clock,
)
from millpond.worker.report.noted_calls import CALLING

#: Looks a second.
LOOKS_PER_SECOND = 5.0

#: The maximum of different places between two heartbeats. The time of further places is counted as `others`.
MOST_PLACES = 40

#: Connections whose round trips are remembered.
MOST_CONNECTIONS = 500

#: Fields of calls between two heartbeats.
MOST_CALLS = 200

#: Where a slot may be that waits for a peer by its handler's own word.
WAITING = ("peer", "sleep", "lock", "file", "child", "thread", "unknown")

#: The activity of a slot that is found on a processor, or ready for one.
RUNNING_NOW = ("processor", "runnable")

#: Modules that call a handler. Others of Millpond and of Celery may be called by it.
_CALLERS = (
    "millpond.worker",
    "millpond.tasks.execute",
    "millpond.tasks.forked_child",
    "millpond.tasks.middleware",
    "millpond.tasks.process",
    "celery.app.trace",
    "celery.app.autoretry",
    "celery.concurrency",
)

#: Modules in which a handler waits for the results of other tasks.
_RESULTS = ("millpond.producer.results", "celery.result")

_MICROS = 1_000_000


#: The kind that each slot of this process runs, by the ident of its thread. Slots write it.
RUNNING: dict[int, str] = {}


def _current_frames() -> dict[int, FrameType]:
    """Return the frame of each other thread. Garbage is not collected meanwhile.

    The caller's own frame would hold itself, and so keep all of them, with the inputs and pictures of tasks
    that have ended, until garbage is collected.

    Before Python 3.11.8 and 3.12.1 the call holds a lock that the end of a `threading.local` takes too, so a
    collection inside it would stop the process for good (gh-106883).
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
class _Look:
    """The last look at a thread: when it was, and the thread's clock then."""

    at: float
    clock: Clock | None


class SlotSampler:
    """Samples the slots of one process. `running` maps the idents of threads to the kinds that they run."""

    def __init__(self, running: Mapping[int, str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._running = running
        self._clock = clock
        self._looks: dict[int, _Look] = {}
        #: The idents of all threads that were slots.
        self._slots: set[int] = set()
        self._places: Counter[Place] = Counter()
        #: The microseconds that slots waited before a look that found them on a processor, by the place that
        #: is likely if no other look finds them waiting.
        self._unseen: Counter[Place] = Counter()
        self._connections: dict[int, tuple[float, int]] = {}
        self._calls: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that looks, unless it runs."""
        if self._thread is None:
            noted_calls.switch["on"] = True
            self._thread = threading.Thread(
                target=self._sample_until_stopped, name="millpond-slots", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()

    def take_samples(self) -> Counter[Place]:
        """Return the microseconds spent in each place since the last call."""
        with self._lock:
            taken, self._places = self._places, Counter()
            unseen, self._unseen = self._unseen, Counter()
        return _with_unseen_waits(taken, unseen)

    def take_calls(self) -> Counter[str]:
        """Return the calls seen and noted since the last call of this, as fields of a window."""
        with self._lock:
            taken, self._calls = self._calls, Counter()
        return taken + noted_calls.pop_noted_calls()

    def look_at_slots(self) -> None:
        """Take one sample of each slot that runs a task, and add the time since the last one to its place."""
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
                self._note_look(ident, kind, tid, frame, other_work)
        for gone in self._looks.keys() - running.keys():
            del self._looks[gone]

    def _sample_until_stopped(self) -> None:
        """Look at the slots several times a second until `stop` is called."""
        while not self._stop.wait(1 / LOOKS_PER_SECOND):
            self.look_at_slots()

    def _note_look(self, ident: int, kind: str, tid: int, frame: FrameType, other_work: "_OtherWork") -> None:
        """Add the time since the last look at a slot: on a processor, waiting for one, or at a place.

        A slot that waits for another thread or a child program that computes is computing.
        """
        now, clock = self._clock(), thread_clock(tid)
        before = self._looks.get(ident)
        self._looks[ident] = _Look(now, clock)
        if before is None:
            return
        passed = now - before.at
        ran = waited = 0.0
        if clock is not None and before.clock is not None:
            ran = min(passed, max(0.0, clock.ran - before.clock.ran))
            waited = min(passed - ran, max(0.0, clock.waited - before.clock.waited))
        wait = blocked_on(tid)
        blocked = place(kind, wait, frame, shared=len(self._running) > 1)
        if (said := CALLING.get(ident)) is not None and blocked.category in WAITING:
            blocked = replace(blocked, category="peer", name=said)
        if worker := _computing_helper(wait, blocked, frame, tid, other_work):
            blocked = Place("processor", worker, kind=kind)
        with self._lock:
            if wait.trips is not None and blocked.category == "peer" and blocked.name != RESULTS:
                self._note_trips(blocked, wait.trips, now)
            self._add_seconds(Place("processor", kind=kind), ran)
            self._add_seconds(Place("runnable", kind=kind), waited)
            if wait.category in RUNNING_NOW:
                self._unseen[blocked] += max(0, int((passed - ran - waited) * _MICROS))
            else:
                self._add_seconds(blocked, passed - ran - waited)

    def _note_trips(self, peer: Place, trips: RoundTrips, now: float) -> None:
        """Add the round trips of a connection since it was seen last, and how long it has waited now."""
        number, count, waited_ms = trips
        if len(self._calls) > MOST_CALLS:
            return
        before = self._connections.pop(number, None)
        self._connections[number] = now, count  # the last seen is the last of the dictionary
        if len(self._connections) > MOST_CONNECTIONS:
            self._connections.pop(next(iter(self._connections)))
        add_wait(self._calls, peer.kind, peer.name, waited_ms)
        if before is None or count < before[1]:
            add_connection(self._calls, peer.kind, peer.name, count, None)
        else:
            add_connection(self._calls, peer.kind, peer.name, count - before[1], now - before[0])

    def _add_seconds(self, where: Place, seconds: float) -> None:
        """Add time to a place, or to `others` if there are too many places."""
        if seconds <= 0:
            return
        if where not in self._places and len(self._places) >= MOST_PLACES:
            where = Place(where.category, "others", kind=where.kind)
        self._places[where] += int(seconds * _MICROS)


def _with_unseen_waits(places: Counter[Place], unseen: Counter[Place]) -> Counter[Place]:
    """Return the places with the waits that no look has seen.

    They are divided among the places at which slots of the same kind were seen waiting. Without one, they
    were spent at the likely place.
    """
    whole = Counter(places)
    for likely, micros in unseen.items():
        seen = {each: spent for each, spent in places.items() if _may_be_unseen(each, likely)} or {likely: 1}
        total = sum(seen.values())
        for each, spent in seen.items():
            whole[each] += micros * spent // total
    return whole


def _may_be_unseen(place: Place, likely: Place) -> bool:
    """True if a wait that was not seen may have been at this place.

    A single slot waits for the interpreter only because of the look.
    """
    if place.kind != likely.kind or (place.category in RUNNING_NOW and not place.name):
        return False
    return place.category != "interpreter" or likely.category == "interpreter"


class _OtherWork:
    """What computes beside the slots, looked at once for all slots, and only if one waits for it."""

    def __init__(self, slots: Set[int]) -> None:
        self._slots = slots

    @cached_property
    def threads_compute(self) -> bool:
        """True if a thread of handlers or of a C library computes."""
        return other_threads_compute(self._slots)

    @cached_property
    def programs_compute(self) -> bool:
        """True if a child program of the process computes."""
        return any(map(is_computing, child_programs()))


def _computing_helper(wait: Blocked, where: Place, frame: FrameType, tid: int, other_work: _OtherWork) -> str:
    """Return the name of the computing programs or threads that a slot waits for. "" if none computes.

    A slot that waits for other threads may wait for any of them, and for any child of the process.
    """
    if where.category in ("child", "sleep"):
        return "child programs" if any(map(is_computing, _awaited_children(frame, tid))) else ""
    if where.category == "thread" and other_work.programs_compute:
        return "child programs"
    in_c = wait.category == "lock" and _waits_in_c(frame)
    return (
        "threads of handlers" if (where.category == "thread" or in_c) and other_work.threads_compute else ""
    )


def _awaited_children(frame: FrameType | None, tid: int) -> list[int]:
    """Return the child programs that a slot waits for.

    That is the one of a `subprocess` or a process of `multiprocessing`, else those that the slot's thread
    (`tid`) has started.
    """
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(("subprocess", "multiprocessing.popen_")):
            waited = frame.f_locals.get("self", frame.f_locals.get("process"))
            if isinstance(pid := getattr(waited, "pid", None), int):
                return [pid]
        frame = frame.f_back
    return child_programs(tid)


def _waits_in_c(frame: FrameType) -> bool:
    """True if a frame that waits for a lock or a signal waits inside C code, not for a lock of Python.

    Its line has none of the words by which a program takes a lock. False if the line is not known.
    """
    if str(frame.f_globals.get("__name__")).startswith(("threading", "queue", "multiprocessing")):
        return False
    code = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return bool(code) and not any(word in code for word in _TAKING_A_LOCK)


def _kernel_id(thread: threading.Thread) -> int | None:
    """Return the kernel's id of a thread. After a fork, Python has the parent's for the main thread."""
    return os.getpid() if thread is threading.main_thread() else thread.native_id


def place(kind: str, blocked: Blocked, frame: FrameType, *, shared: bool) -> Place:
    """Return the place of a slot: the kernel names the cause, the stack the library and the line.

    `shared` is True if other slots of this process run as well.
    """
    stack = _handler_stack(frame)
    library, line = _called_package(stack), _waiting_line(stack)
    if blocked.category in RUNNING_NOW:
        # The clock has the time that it ran. For the rest, a slot that computes waits for others to run.
        return Place("interpreter", kind=kind) if shared else Place("unknown", "", library, line, kind)
    if blocked.category == "interpreter":
        return Place("interpreter", kind=kind)
    if any(_waits_for_results(each) for each in stack):
        return Place("peer", RESULTS, library, line, kind)
    if blocked.category == "lock" and not blocked.name and _waits_in_c(frame):
        return Place("thread", "", library, line, kind)  # a lock, or a signal of another thread
    if (lock := _lock_name(stack, blocked, library)) is not None:
        return Place("lock", lock, library, line, kind)
    if blocked.category == "lock":
        return Place("thread", blocked.name, library, line, kind)
    return Place(blocked.category, blocked.name, library, line, kind)


def _handler_stack(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of the handler and of its calls, innermost first."""
    stack = []
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(_CALLERS):
            break
        stack.append(frame)
        frame = frame.f_back
    return stack


def _waits_for_results(frame: FrameType) -> bool:
    """True if a frame waits for the results of other tasks: of a batch, or Celery's."""
    module = str(frame.f_globals.get("__name__", ""))
    return module.startswith(_RESULTS) or frame.f_code.co_qualname == "Batch.wait"


def _called_package(stack: list[FrameType]) -> str:
    """Return the package that the handler called: the outermost one that is not the handler's own."""
    own = _package_of(stack[-1]) if stack else ""
    packages = [package for each in reversed(stack) if (package := _package_of(each)) != own]
    others = [package for package in packages if package not in sys.stdlib_module_names]
    return next(iter(others or packages), "")


def _waiting_line(stack: list[FrameType]) -> str:
    """Return the module and the line of the handler's package that is waiting, `shop.orders:41`."""
    own = _package_of(stack[-1]) if stack else ""
    inner = next((each for each in stack if _package_of(each) == own), None)
    return f"{inner.f_globals.get('__name__', '?')}:{inner.f_lineno}" if inner else ""


def _package_of(frame: FrameType) -> str:
    """Return the top-level package whose code runs in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


#: Calls in which SQLite waits for its file.
_STATEMENTS = ("execute", "commit", "rollback", "blob", "with ")

#: Words in a line that takes a lock of Python.
_TAKING_A_LOCK = ("with ", "acquire", "enter", "lock")

#: Packages of locks that are polled, and the attribute with the lock's name.
_POLLED = {"redis.lock": "name", "filelock": "lock_file", "portalocker": "filename"}
#: Modules in which a thread waits for one of a few connections.
_CONNECTION_POOLS = (
    "sqlalchemy.pool", "psycopg_pool", "psycopg2.pool", "urllib3.connectionpool", "httpcore",
    "redis.connection", "pymongo.pool", "mysql.connector.pooling", "oracledb",
)  # fmt: skip
#: Functions of `threading` in which a thread waits for its turn. In the others it waits for another thread.
_TURNS = ("Semaphore.acquire", "BoundedSemaphore.acquire")


def _lock_name(stack: list[FrameType], blocked: Blocked, library: str) -> str | None:
    """Return the name of the lock that a slot waits for. Return None if it waits for no lock.

    That is a polled lock (in Redis, of a file), a connection pool, SQLite, or a lock that the kernel names.
    """
    for frame in stack:
        module = str(frame.f_globals.get("__name__"))
        if name := _polled_lock(module, frame):
            return name
        if blocked.category == "lock" and module.startswith(_CONNECTION_POOLS):
            return blocked.name or f"the connection pool of {library}"
    if blocked.category in ("sleep", "file") and "sqlite3" in sys.modules and stack:
        code = linecache.getline(stack[0].f_code.co_filename, stack[0].f_lineno)
        if any(word in code for word in _STATEMENTS) and library in ("", "sqlite3", "sqlalchemy", "django"):
            return "SQLite"
    return blocked.name if blocked.category == "lock" and not _waits_for_others(stack, blocked) else None


def _polled_lock(module: str, frame: FrameType) -> str:
    """Return the name of the lock that a library polls, or "" if the frame polls none."""
    attribute = next((each for prefix, each in _POLLED.items() if module.startswith(prefix)), "")
    name = getattr(frame.f_locals.get("self"), attribute, "") if attribute else ""
    name = name.decode() if isinstance(name, bytes) else str(name)
    return f"redis lock {name}" if name and module == "redis.lock" else name


def _waits_for_others(stack: list[FrameType], blocked: Blocked) -> bool:
    """True if a thread waits until another thread or process has done something for it, not for its turn."""
    inside = [each for each in stack if each.f_globals.get("__name__") == "threading"]
    return not blocked.name and bool(inside) and inside[-1].f_code.co_qualname not in _TURNS
