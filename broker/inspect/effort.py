"""The cost to the server of a search of waiting messages: it runs nothing else during each call."""

import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """The bounds of a search: messages read in a call, the maximum of a list (None: all), and the pauses.

    With `rest` 1.0 the server is left alone after each call for as long as the call took.
    """

    page: int = 1_000
    max_count: int | None = None
    rest: float = 0.0

    def page_sizes(self) -> Iterator[int]:
        """Yield the number of messages to read in each call, until `max_count` were read. Rest after each."""
        read = 0
        while self.max_count is None or read < self.max_count:
            started = time.monotonic()
            yield self.page
            read += self.page
            if self.rest:
                time.sleep(self.rest * (time.monotonic() - started))


#: Everything, as fast as it can be read.
FULL = Effort()
