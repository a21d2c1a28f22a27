"""The share of each token in what the gateway has a limited number of: requests, streams, bodies, threads.

If there are several tokens, none has more than half. `loop_shares.py` shares the time of the event loop.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from millpond.producer.gateway.problems import api_error


def share_of(max_count: int, tokens: int) -> int:
    """Return how many of `max_count` units one of this many tokens may have."""
    return max_count if tokens < 2 else max(1, max_count // 2)


class Shares:
    """Counts the units that each token holds, and refuses a token that has its share."""

    def __init__(self, max_count: int, tokens: int, unit_name: str) -> None:
        self._share = share_of(max_count, tokens)
        self._unit_name = unit_name
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold_share(self, token: str) -> Iterator[None]:
        """Count one request, or connection, of a token during the block.

        Raises `ApiError` 503 if the token has as many at once as its share.
        """
        if self._held[token] >= self._share:
            text = (
                f"the token {token} has {self._share} {self._unit_name} at once, its share: try again later"
            )
            raise api_error(503, "share_used", text, retry_after=1)
        self._held[token] += 1
        try:
            yield
        finally:
            self._held[token] -= 1


class Turns:
    """Makes the calls of one token wait for each other, so that those of another find a free thread."""

    def __init__(self, max_count: int, tokens: int) -> None:
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(share_of(max_count, tokens))
        )

    def turn_of(self, token: str) -> asyncio.Semaphore:
        """Return the context manager within which a call of a token is made."""
        return self._turns[token]
