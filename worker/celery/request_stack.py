"""The requests that a thread runs, a stack for each thread.

Celery's own stack looks the calling thread or greenlet up in Python code, several times a task. A
`threading.local` does it in C, and is a greenlet's own if Python was patched for greenlets.
"""

import threading
from typing import Any

from celery import Celery, Task


class RequestStack(threading.local):
    """The stack of a task's requests, with the methods that Celery calls.

    Celery's tracer keeps `push` and `pop` from the thread that made it. Called in another thread, they use
    the stack of that thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[Any] = []

    def push(self, request: Any) -> None:
        """Put a request on top of the stack."""
        self.stack.append(request)

    def pop(self) -> Any:
        """Remove the newest request and return it, or None if there is none."""
        return self.stack.pop() if self.stack else None

    @property
    def top(self) -> Any:
        """Return the newest request, or None if there is none."""
        return self.stack[-1] if self.stack else None

    def __len__(self) -> int:
        return len(self.stack)


class PondTask(Task):
    """Celery's task with the `RequestStack` of this module, which is faster than Celery's."""

    abstract = True

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Replace the stack of requests that Celery made when it bound the task to `app`."""
        super().on_bound(app)
        cls.request_stack = RequestStack()
