"""Make an object once in each process, for all threads of that process. A forked child makes its own.

`functools.lru_cache` calls its function once in each thread that comes before the first result.
"""

import os
import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class one_per_process(Generic[P, T]):
    """A decorator of a function: it makes its object once in each process, for all threads of that.

    It is made anew if the arguments change, which are compared by identity and then by equality. Other
    threads wait while it is made. If that raises an error, the next call tries again. A call that finds the
    object takes no lock.
    """

    def __init__(self, make: Callable[P, T]) -> None:
        update_wrapper(self, make)
        self._make = make
        #: The process and the arguments for which the object was made, and the object.
        self._made: tuple[tuple[object, ...], T] | None = None
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def __call__(self, *args: P.args, **options: P.kwargs) -> T:
        """Return the object of this process for these arguments; make it if there is none."""
        key = (os.getpid(), args, options)
        made = self._made
        if made is None or made[0] != key:
            with self._lock:
                made = self._made
                if made is None or made[0] != key:
                    made = self._made = key, self._make(*args, **options)
        return made[1]

    def forget(self) -> None:
        """Make a new object at the next call."""
        self._made = None

    def _renew_lock(self) -> None:
        """Replace the lock. In a forked child, a thread that does not exist there may have it."""
        self._lock = threading.RLock()
