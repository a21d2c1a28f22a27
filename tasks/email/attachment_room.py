"""The room that one process has for attachments: mails that need more than is left wait for each other.

A mail takes about seven times its attachments while it is composed and sent: read, encoded, joined, with its
line ends checked. Eight slots with the largest mail each would need more than the memory of their container.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class AttachmentRoom:
    """The bytes of attachments that one process may hold. Threads get them in the order of their requests."""

    def __init__(self, bytes_: int) -> None:
        self._bytes = bytes_
        self._left = bytes_
        self._line = deque[object]()
        self._changed = Condition()

    @contextmanager
    def reserve_bytes(self, needed: int) -> Iterator[None]:
        """Reserve bytes during the block, waiting until they are free.

        More than there are counts as all of them.
        """
        if not needed:
            yield
            return
        needed, ticket = min(needed, self._bytes), object()
        with self._changed:
            self._line.append(ticket)
            try:
                self._changed.wait_for(lambda: self._line[0] is ticket and self._left >= needed)
                self._left -= needed
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._left += needed
                self._changed.notify_all()
