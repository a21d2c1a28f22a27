"""Number the processes of pools, so that no two of one broker have one name on this host.

A second `millpond worker` of a pool on the same host goes on where the numbers of the first one end. A
number is a locked file in the folder of the heartbeat files; the kernel frees it as its supervisor ends.
"""

import fcntl
import hashlib
import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from millpond.tasks.process.heartbeat_file import folder

logger = logging.getLogger(__name__)


class Numbers:
    """Hold the numbers of this supervisor's processes until the `with` ends."""

    def __init__(self, broker_url: str, key_prefix: str) -> None:
        broker = hashlib.sha256(f"{broker_url} {key_prefix}".encode()).hexdigest()[:16]
        self._folder = folder() / "numbers" / broker
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def free(self, pool: str) -> Iterator[int]:
        """Yield the numbers from 1 on that no other supervisor has, each held from then on.

        Where no file can be made or locked, nobody's number is known and all count as free.
        """
        for number in itertools.count(1):
            try:
                self._hold(self._folder / f"{pool}.{number}")
            except BlockingIOError:
                continue
            except OSError as error:
                logger.debug("processes are numbered without a look at those of others: %s", error)
            yield number

    def _hold(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as opened:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            opened.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._held.push(opened.pop_all())
