"""Claims of a worker and its prefork child on the tasks of a chunk, and the answers of those that ended.

It is made before the child is forked, and both see it. The child claims a task before it starts it, from the
front; the worker takes tasks back, from the end. A claim is had once, whoever asks, and neither waits for
the other. What a dead child has claimed stays claimed: so it is known what it never started.
"""

import pickle
from mmap import mmap
from multiprocessing import get_context
from typing import Any

from billiard import get_start_method

#: The answers of a chunk are kept here up to this many bytes; what does not fit is answered when it ends.
KEPT_BYTES = 65_536

_LENGTH_BYTES = 4


class Claims:
    """Count the tasks of one chunk that nobody has started, and keep the answers of those that ended."""

    def __init__(self, number: int) -> None:
        context = get_context("fork")
        self.number = number
        self._unstarted = context.Semaphore(0)
        self._ended = context.Semaphore(0)
        self._kept = mmap(-1, KEPT_BYTES)
        #: How far the worker has read, and the child has written.
        self._read = self._written = 0

    # The worker's side

    def offer(self, count: int) -> None:
        """Begin with a chunk of so many tasks; no child may still have to do with the one before."""
        self.take_back()
        while self._ended.acquire(False):
            pass
        self._read = 0
        for _ in range(count):
            self._unstarted.release()

    def take_back(self) -> int:
        """Take back every task that is not started, the last ones of the chunk; return their number."""
        count = 0
        while self._unstarted.acquire(False):
            count += 1
        return count

    def answers(self) -> list[Any]:
        """Return the answers, in order, that have come since this was last asked."""
        found = []
        while self._ended.acquire(False):
            start = self._read + _LENGTH_BYTES
            self._read = start + int.from_bytes(self._kept[self._read : start])
            found.append(pickle.loads(self._kept[start : self._read]))
        return found

    # The child's side

    def begin(self) -> None:
        """Begin with the first task."""
        self._written = 0

    def claim(self) -> bool:
        """Claim the next task; False: it was taken back, and so were all behind it."""
        return self._unstarted.acquire(False)

    def keep(self, answer: Any) -> None:
        """Keep the answer of the task that just ended, unless it or one before it cannot be kept."""
        if self._written > KEPT_BYTES:
            return
        try:
            text = pickle.dumps(answer)
        except Exception:  # whatever it is, whoever sends the answer when the chunk ends meets it
            self._written = KEPT_BYTES + 1
            return
        start, self._written = self._written, self._written + _LENGTH_BYTES + len(text)
        if self._written <= KEPT_BYTES:
            self._kept[start : self._written] = len(text).to_bytes(_LENGTH_BYTES) + text
            self._ended.release()  # in this order: the worker reads what it was told of


#: All of this process, by their numbers; its children inherit them.
_shared: list[Claims] = []


def shared_by(pool: Any) -> list[Claims]:
    """Make the claims for a pool of Celery's whose children are still to be forked.

    None for one whose children inherit nothing.
    """
    if not (pool.uses_semaphore and pool.forking_enable and get_start_method() == "fork"):
        return []
    # Twice what its slots can use at once: what a dead child had is not used again for a while.
    made = [Claims(len(_shared) + n) for n in range(2 * pool.limit)]
    _shared.extend(made)
    return made


def claims(number: int) -> Claims:
    """Return the claims that this process inherited, by their number."""
    return _shared[number]
