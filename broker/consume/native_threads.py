"""Threads of the operating system, even if gevent has made greenlets of `threading`.

A greenlet that blocks its loop blocks every other greenlet, and a lease must be renewed meanwhile.
"""

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any


def are_green() -> bool:
    """True if `threading` starts greenlets in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def native_thread_id() -> int:
    """Return the id that the operating system gives the calling thread."""
    if are_green():
        return int(sys.modules["gevent.monkey"].get_original("_thread", "get_ident")())
    return threading.get_ident()


def start_thread(run: Callable[[], None], name: str) -> Callable[[float], Any]:
    """Run a function in a thread of its own. Return a function that waits a number of seconds for its end."""
    if are_green():
        hub: Any = importlib.import_module("gevent").get_hub()
        return hub.threadpool.spawn(run).wait  # type: ignore[no-any-return]
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread.join
