"""Threads of the operating system, even if gevent has patched `threading` to start greenlets.

A greenlet that does not yield stops all other greenlets, and leases must be renewed meanwhile.
"""

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any


def threads_are_greenlets() -> bool:
    """True if `threading` starts greenlets in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def native_thread_id() -> int:
    """Return the id that the operating system gives the calling thread."""
    if threads_are_greenlets():
        return int(sys.modules["gevent.monkey"].get_original("_thread", "get_ident")())
    return threading.get_ident()


def start_thread(run: Callable[[], None], name: str) -> Callable[[float], Any]:
    """Run a function in a thread of its own. Return a function that waits a number of seconds for its end."""
    if threads_are_greenlets():
        hub: Any = importlib.import_module("gevent").get_hub()
        return hub.threadpool.spawn(run).wait  # type: ignore[no-any-return]
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread.join
