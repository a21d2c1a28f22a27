"""The effort of a search of waiting messages. The server runs nothing else during each call of it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """The bounds of a search.

    Each call reads `page` messages, and `max_count` messages are read of each list (None: all). After each
    call the search pauses for the time of the call times `pause_factor`.
    """

    page: int = 1_000
    max_count: int | None = None
    pause_factor: float = 0.0

    def page_sizes(self) -> Iterator[int]:
        """Yield the number of messages for each call, until `max_count` were read. Pause after each."""
        read = 0
        while self.max_count is None or read < self.max_count:
            started = time.monotonic()
            yield self.page
            read += self.page
            if self.pause_factor:
                time.sleep(self.pause_factor * (time.monotonic() - started))


#: All messages, without pauses.
FULL = Effort()
