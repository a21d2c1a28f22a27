"""The share of each token in the limited resources of the gateway: requests, streams, bodies, threads.

If there are several tokens, none has more than half. `loop_shares.py` shares the time of the event loop.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from millpond.producer.gateway.problems import ApiError


def share_of(max_count: int, token_count: int) -> int:
    """Return how many of `max_count` units one token may have at once, if `token_count` are configured."""
    return max_count if token_count < 2 else max(1, max_count // 2)


class Shares:
    """Counts the units of one resource that each token holds, and refuses a token that has its share.

    `unit_name` names the units in the error: "requests".
    """

    def __init__(self, max_count: int, token_count: int, unit_name: str) -> None:
        self._share = share_of(max_count, token_count)
        self._unit_name = unit_name
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold_share(self, token: str) -> Iterator[None]:
        """Count one more unit of a token during the block. Raises `ApiError` 503 if it has its share."""
        if self._held[token] >= self._share:
            text = (
                f"the token {token} has {self._share} {self._unit_name} at once, its share: try again later"
            )
            raise ApiError(503, "share_used", text, retry_after=1)
        self._held[token] += 1
        try:
            yield
        finally:
            self._held[token] -= 1
