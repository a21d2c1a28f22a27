"""The cost to the server of a search of waiting messages: it runs nothing else during each call."""

import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """The bounds of a search: messages read in a call, the maximum of each list (None: all), the pauses.

    With `rest` 1.0 the server is left alone after each call for as long as the call took.
    """

    page: int = 1_000
    most: int | None = None
    rest: float = 0.0

    def page_sizes(self) -> Iterator[int]:
        """Yield the number of messages of each next call, until as many as allowed were read."""
        read = 0
        while self.most is None or read < self.most:
            started = time.monotonic()
            yield self.page
            read += self.page
            if self.rest:
                time.sleep(self.rest * (time.monotonic() - started))


#: Everything, as fast as it can be read.
FULL = Effort()
