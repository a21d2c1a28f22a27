"""Limit the attachments that one process has in memory: a mail waits until those of others are sent.

A mail takes about seven times the size of its attachments while it is composed and sent. Eight slots, each
with a mail of the largest size, would need more than the memory of their container.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class AttachmentBudget:
    """The bytes of attachments that a process may have in memory. Threads get them in the order of asking."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._free_bytes = max_bytes
        self._waiting = deque[object]()
        self._changed = Condition()

    @contextmanager
    def reserve_bytes(self, count: int) -> Iterator[None]:
        """Wait until `count` bytes are free, and reserve them during the block.

        A mail that needs more than `max_bytes` waits until all of them are free.
        """
        if not count:
            yield
            return
        count, ticket = min(count, self._max_bytes), object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self._free_bytes >= count)
                self._free_bytes -= count
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += count
                self._changed.notify_all()
