"""Where a slot waits: its lock, library and line, from what the kernel shows and from its Python stack."""

import linecache
import sys
from types import FrameType

from millpond.broker.stats.window import RESULTS, Place
from millpond.worker.report.thread_activity import Activity

#: The activity of a slot that is found on a processor, or ready for one.
RUNNING_NOW = ("processor", "runnable")
#: Modules that call handlers: the stack of a handler ends at them. Handlers may call other modules of
#: Millpond and of Celery.
_HANDLER_CALLERS = (
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
_RESULT_MODULES = ("millpond.producer.results", "celery.result")
#: Words in a line in which SQLite waits for the lock of its file.
_SQLITE_CALLS = ("execute", "commit", "rollback", "blob", "with ")

#: Words in a line that acquires a lock of Python.
_TAKING_A_LOCK = ("with ", "acquire", "enter", "lock")

#: Packages whose locks are polled, and the attribute with the lock's name.
_POLLED_LOCKS = {"redis.lock": "name", "filelock": "lock_file", "portalocker": "filename"}
#: Modules in which a thread waits for one of a few connections.
_CONNECTION_POOLS = (
    "sqlalchemy.pool", "psycopg_pool", "psycopg2.pool", "urllib3.connectionpool", "httpcore",
    "redis.connection", "pymongo.pool", "mysql.connector.pooling", "oracledb",
)  # fmt: skip
#: Functions of `threading` in which a thread waits for its turn. In the others it waits for another thread.
_TURN_FUNCTIONS = ("Semaphore.acquire", "Condition.__enter__")


def find_place(kind: str, activity: Activity, frame: FrameType, *, others_run: bool) -> Place:
    """Return the place of a slot: its category and name by the kernel, its library and line by the stack.

    `others_run` is True if other slots of this process run tasks too.
    """
    stack = _handler_stack(frame)
    library, line = _called_package(stack), _waiting_line(stack)
    if activity.category in RUNNING_NOW:
        # The time that the slot ran is known from its clock. For the rest it waited while other threads ran.
        return Place("interpreter", kind=kind) if others_run else Place("unknown", "", library, line, kind)
    if activity.category == "interpreter":
        return Place("interpreter", kind=kind)
    if any(_waits_for_results(handler_frame) for handler_frame in stack):
        return Place("peer", RESULTS, library, line, kind)
    if activity.category == "lock" and not activity.name and waits_in_c(frame):
        return Place("thread", "", library, line, kind)  # perhaps a lock, perhaps a signal of another thread
    if (lock := _lock_name(stack, activity, library)) is not None:
        return Place("lock", lock, library, line, kind)
    if activity.category == "lock":
        return Place("thread", activity.name, library, line, kind)
    return Place(activity.category, activity.name, library, line, kind)


def _handler_stack(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of the handler and of the functions that it calls, the innermost first."""
    stack = []
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(_HANDLER_CALLERS):
            break
        stack.append(frame)
        frame = frame.f_back
    return stack


def _waits_for_results(frame: FrameType) -> bool:
    """True if a frame waits for the results of other tasks: of a batch, or Celery's."""
    module = str(frame.f_globals.get("__name__", ""))
    return module.startswith(_RESULT_MODULES) or frame.f_code.co_qualname == "Batch.wait"


def _called_package(stack: list[FrameType]) -> str:
    """Return the package that the handler calls, "" if none: the outermost one that is not the handler's own.

    A package of the standard library counts only if there is no other.
    """
    own = _package_of(stack[-1]) if stack else ""
    packages = [package for frame in reversed(stack) if (package := _package_of(frame)) != own]
    installed = [package for package in packages if package not in sys.stdlib_module_names]
    return next(iter(installed or packages), "")


def _waiting_line(stack: list[FrameType]) -> str:
    """Return the innermost line of the handler's own package, as `shop.orders:41`, or "" without a stack."""
    own = _package_of(stack[-1]) if stack else ""
    innermost = next((frame for frame in stack if _package_of(frame) == own), None)
    return f"{innermost.f_globals.get('__name__', '?')}:{innermost.f_lineno}" if innermost else ""


def _package_of(frame: FrameType) -> str:
    """Return the top-level package whose code runs in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _lock_name(stack: list[FrameType], activity: Activity, library: str) -> str | None:
    """Return the name of the lock that a slot waits for, "" for a lock without a name, None for no lock.

    The lock may be a polled one (in Redis, of a file), a connection pool, SQLite's, or one that the kernel
    shows.
    """
    for frame in stack:
        module = str(frame.f_globals.get("__name__"))
        if name := _polled_lock(module, frame):
            return name
        if activity.category == "lock" and module.startswith(_CONNECTION_POOLS):
            return activity.name or f"the connection pool of {library}"
    if activity.category in ("sleep", "file") and "sqlite3" in sys.modules and stack:
        code = linecache.getline(stack[0].f_code.co_filename, stack[0].f_lineno)
        if any(word in code for word in _SQLITE_CALLS) and library in ("", "sqlite3", "sqlalchemy", "django"):
            return "SQLite"
    return (
        activity.name
        if activity.category == "lock" and not _waits_for_other_thread(stack, activity)
        else None
    )


def _polled_lock(module: str, frame: FrameType) -> str:
    """Return the name of the lock that a library polls, or "" if the frame polls none."""
    attribute = next((name for prefix, name in _POLLED_LOCKS.items() if module.startswith(prefix)), "")
    name = getattr(frame.f_locals.get("self"), attribute, "") if attribute else ""
    name = name.decode() if isinstance(name, bytes) else str(name)
    return f"redis lock {name}" if name and module == "redis.lock" else name


def _waits_for_other_thread(stack: list[FrameType], activity: Activity) -> bool:
    """True if a slot waits in `threading` until another thread has done something, and not for its turn.

    The kernel has no name for what it waits for, its stack has frames of `threading`, and the outermost of
    these is none of `_TURN_FUNCTIONS`.
    """
    inside = [frame for frame in stack if frame.f_globals.get("__name__") == "threading"]
    return not activity.name and bool(inside) and inside[-1].f_code.co_qualname not in _TURN_FUNCTIONS


def waits_in_c(frame: FrameType) -> bool:
    """True if a frame that waits for a lock or a signal waits inside C code, not for a lock of Python.

    Its line has none of the words by which a program takes a lock. False if the line is not known.
    """
    if str(frame.f_globals.get("__name__")).startswith(("threading", "queue", "multiprocessing")):
        return False
    code = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return bool(code) and not any(word in code for word in _TAKING_A_LOCK)
