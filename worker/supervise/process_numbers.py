"""Numbers for the processes of pools, so that no two processes of one broker have the same name on a host.

A second `millpond worker` of a pool on the same host takes the next numbers. A number is a locked file beside
the heartbeat files. The kernel frees the lock when the supervisor ends.
"""

import fcntl
import hashlib
import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack

from millpond.tasks.process.paths import open_private_folder

logger = logging.getLogger(__name__)


class ProcessNumbers(ExitStack):
    """The numbers of this supervisor's processes. They are freed when the `with` block ends."""

    def __init__(self, broker_url: str, key_prefix: str) -> None:
        super().__init__()
        self._broker = hashlib.sha256(f"{broker_url} {key_prefix}".encode()).hexdigest()[:16]

    def lock_free_numbers(self, pool: str) -> Iterator[int]:
        """Lock and yield, one by one, the numbers from 1 on that no other supervisor has locked.

        A number whose file cannot be created or locked for another reason counts as free.
        """
        for number in itertools.count(1):
            try:
                self._lock_number(f"{self._broker}.{pool}.{number}")
            except BlockingIOError:
                continue
            except OSError as error:
                logger.debug("numbering processes without regard to other supervisors: %s", error)
            yield number

    def _lock_number(self, file_name: str) -> None:
        """Create and lock the file of a number.

        Raises `BlockingIOError` if another supervisor has the lock.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with ExitStack() as opened:
            folder = open_private_folder("numbers")
            try:
                descriptor = os.open(file_name, flags, 0o600, dir_fd=folder)
            finally:
                os.close(folder)
            opened.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.push(opened.pop_all())
