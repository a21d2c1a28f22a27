"""The share of each token in the time of the event loop, which serves one request's step at a time.

A token that has used more of the last moment than its share waits with its next request, or its next piece of
a body, while those of others are served. A token that is alone has all the time there is.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

#: The time that a token may use ahead of its share.
AHEAD_SECONDS = 0.01
#: A token takes part in the sharing for so long after a request.
ACTIVE_SECONDS = 1.0
_COUNTED_SECONDS = 0.1


@dataclass(slots=True)
class _Account:
    """A token's account: when its use is paid back, when it last asked, and its requests that wait."""

    paid_at: float = 0.0
    asked_at: float = 0.0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    is_timed: bool = False


class LoopShares:
    """Shares one event loop's time among the tokens that use it."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._active, self._counted_at = 1, 0.0

    async def turn(self, token: str) -> None:
        """Return at once while the token is within its share, or else in its turn; requests start in line."""
        now = monotonic()
        account = self._accounts.get(token)
        if account is None:
            account = self._accounts[token] = _Account()
        account.asked_at = now
        if not account.waiting and account.paid_at - now <= AHEAD_SECONDS:
            return
        mine = asyncio.get_running_loop().create_future()
        account.waiting.append(mine)
        if not account.is_timed:
            self._time(account)
        await mine

    async def metered(self, token: str, call: Awaitable[None]) -> None:
        """Await a call; each of its steps is charged to the token."""
        await _Metered(call, lambda seconds: self._charge(token, seconds))

    def _charge(self, token: str, seconds: float) -> None:
        account, now = self._accounts[token], monotonic()
        account.paid_at = max(account.paid_at, now - seconds) + seconds * self._active_at(now)

    def _active_at(self, now: float) -> int:
        """Return the number of tokens that use the loop."""
        if now - self._counted_at > _COUNTED_SECONDS:
            self._counted_at = now
            since = now - ACTIVE_SECONDS
            self._active = sum(
                bool(each.waiting) or each.asked_at > since for each in self._accounts.values()
            )
        return max(1, self._active)

    def _time(self, account: _Account) -> None:
        account.is_timed = bool(account.waiting)
        if account.is_timed:
            wait_seconds = account.paid_at - AHEAD_SECONDS - monotonic()
            asyncio.get_running_loop().call_later(max(0.0, wait_seconds), self._start_next, account)

    def _start_next(self, account: _Account) -> None:
        while account.waiting:
            first = account.waiting.popleft()
            if not first.done():  # its client has not gone
                first.set_result(None)
                break
        # The request that starts now is charged before this call: it was put in line first.
        asyncio.get_running_loop().call_soon(self._time, account)


class _Metered:
    """An awaitable that measures each step of another."""

    def __init__(self, call: Awaitable[None], charge: Callable[[float], None]) -> None:
        self._call, self._charge = call, charge

    def __await__(self) -> Generator[Any, Any, None]:
        steps: Any = self._call.__await__()
        thrown: BaseException | None = None
        while True:
            began = monotonic()
            try:
                waits_for = steps.send(None) if thrown is None else steps.throw(thrown)
            except StopIteration:
                return
            finally:
                self._charge(monotonic() - began)
            try:
                thrown = None
                yield waits_for
            except BaseException as error:
                thrown = error
