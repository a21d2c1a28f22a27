"""The share of each token in the time of the event loop, which serves one request's step at a time.

`shares.py` bounds numbers instead: the requests, streams and threads that a token has at once.

A token that has used more of the last moment than its share waits with its next request, or its next piece of
a body, while those of others are served. A token that is alone has all the time there is.

A token that has many requests under way, or uses much of the loop, and in that more than the tokens of the
moment on average, is heavy: its connections are in the background, behind those of light tokens. Requests
under way count beside the time used because a token that is held back uses little.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from math import exp, inf
from time import monotonic
from typing import Any, Protocol

from millpond.producer.gateway.priority_selector import Background, SocketPlace

#: The time that a token may use ahead of its share.
AHEAD_SECONDS = 0.01
#: A token takes part in the sharing for this time after a request.
ACTIVE_SECONDS = 1.0
_COUNTED_SECONDS = 0.1
#: A token with no more requests under way, and no larger part of the loop's time, is light.
MANY, MUCH = 16, 0.2
#: The loop's time that a refused request of a heavy token is charged for, beside the time it took, so that
#: it costs its token time. The second is the maximum that a token owes for them.
REFUSAL_SECONDS, MOST_OWED_SECONDS = 0.005, 1.0
#: A heavy token stays so for at least this time.
HEAVY_SECONDS = 1.0
#: All senders without a token that the gateway knows share one share. No token has this name.
STRANGERS = ""


class GatewayConnection(Protocol):
    """A connection that can be put forward or behind."""

    def put(self, place: SocketPlace) -> None:
        """Put it there."""


@dataclass(slots=True, eq=False)
class _Account:
    """The use of the loop by a token: when it is paid back, the last request, and the requests that wait."""

    paid_at: float = 0.0
    asked_at: float = 0.0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    is_timed: bool = False
    used: float = 0.0
    faded: float = 0.0
    under_way: int = 0
    heavy_until: float = 0.0
    forward: set[GatewayConnection] = field(default_factory=set)
    light: set[int] = field(default_factory=set)

    def is_heavy(self, now: float) -> bool:
        """True if its connections belong into the background."""
        return self.heavy_until > now

    def fade_used(self, fading: float) -> float:
        """Return the seconds used in the last moment, with those since the last count added."""
        self.faded = self.faded * fading + self.used
        self.used = 0.0
        return self.faded


class LoopShares:
    """Shares one event loop's time among the tokens that use it."""

    def __init__(self, background: Background | None = None) -> None:
        self._background = background or Background()
        self._accounts: dict[str, _Account] = {STRANGERS: _Account(heavy_until=inf)}
        self._active, self._counted_at = 1, 0.0

    def begin_request(self, token: str, connection: GatewayConnection | None) -> int | None:
        """Place a request's connection by its token. A request of a light token holds up the background.

        Returns the number of a light request, None for another.
        """
        account = self._account_of(token)
        account.under_way += 1
        if account.is_heavy(monotonic()):
            if connection is not None:
                connection.put(SocketPlace.BEHIND)
            return None
        if connection is not None:
            connection.put(SocketPlace.FORWARD)
            account.forward.add(connection)
        light = self._background.light_began()
        account.light.add(light)
        return light

    def end_request(self, token: str, light: int | None) -> None:
        """End a request by the value that `begin_request` returned."""
        account = self._account_of(token)
        account.under_way -= 1
        if light is not None:
            account.light.discard(light)
            self._background.light_ended(light)

    def forget_connection(self, token: str, connection: GatewayConnection) -> None:
        """Forget a connection that has ended."""
        self._account_of(token).forward.discard(connection)

    async def wait_turn(self, token: str) -> None:
        """Wait until a request of the token may start. Requests of one token start in the order of arrival.

        Return at once if the token is within its share and no earlier request of it waits.
        """
        now = monotonic()
        account = self._account_of(token)
        account.asked_at = now
        if not account.waiting and self._wait_seconds(account, now) <= 0:
            return
        mine = asyncio.get_running_loop().create_future()
        account.waiting.append(mine)
        if not account.is_timed:
            self._plan_next_start(account)
        await mine

    async def run_metered(self, token: str, call: Awaitable[None]) -> None:
        """Await a call, and charge the loop's time of each of its steps to the token."""
        await _MeteredAwaitable(call, lambda seconds: self.charge_seconds(token, seconds))

    def charge_seconds(self, token: str, seconds: float) -> None:
        """Charge time of the loop to a token."""
        account, now = self._account_of(token), monotonic()
        account.used += seconds
        account.paid_at = max(account.paid_at, now - seconds) + seconds * self._count_active(now)

    def charge_refusal(self, token: str) -> None:
        """Charge a heavy token for a refused request: more than its time. A light token is not charged."""
        account, now = self._account_of(token), monotonic()
        if account.is_heavy(now) and account.paid_at < now + MOST_OWED_SECONDS:
            account.paid_at = max(account.paid_at, now) + REFUSAL_SECONDS * self._count_active(now)

    def _account_of(self, token: str) -> _Account:
        """Return the account of a token, and open it at its first request."""
        account = self._accounts.get(token)
        if account is None:
            account = self._accounts[token] = _Account()
        return account

    def _count_active(self, now: float) -> int:
        """Return the number of tokens that use the loop."""
        if now - self._counted_at > _COUNTED_SECONDS:
            fading = exp((self._counted_at - now) / ACTIVE_SECONDS)
            self._counted_at = now
            since = now - ACTIVE_SECONDS
            active = [
                each
                for each in self._accounts.values()
                if each.waiting or each.under_way or each.asked_at > since
            ]
            self._active = len(active)
            self._find_heavy([each for each in active if each.heavy_until < inf], fading, now)
        return max(1, self._active)

    def _find_heavy(self, active: list[_Account], fading: float, now: float) -> None:
        """Find the heavy ones of the tokens that use the loop."""
        if not active:
            return
        used = [each.fade_used(fading) for each in active]
        many = max(MANY, sum(each.under_way for each in active) / len(active))
        much = max(MUCH * ACTIVE_SECONDS, sum(used) / len(active))
        for account, seconds in zip(active, used, strict=True):
            if len(active) > 1 and (account.under_way > many or seconds > much):
                account.heavy_until = now + HEAVY_SECONDS
                self._put_behind(account)
            elif len(active) == 1:
                account.heavy_until = 0.0

    def _put_behind(self, account: _Account) -> None:
        """Move the connections of a token to the background."""
        for connection in account.forward:
            connection.put(SocketPlace.BEHIND)
        account.forward.clear()
        for light in account.light:
            self._background.light_ended(light)
        account.light.clear()

    def _wait_seconds(self, account: _Account, now: float) -> float:
        """Return the seconds until a request of the token may start: 0 or less if it may now."""
        wait_seconds = account.paid_at - AHEAD_SECONDS - now
        if account.is_heavy(now) and self._background.is_held:
            return max(wait_seconds, self._background.rest_seconds())
        return wait_seconds

    def _plan_next_start(self, account: _Account) -> None:
        """Set the timer for the next waiting request of the token, if there is one."""
        account.is_timed = bool(account.waiting)
        if account.is_timed:
            wait_seconds = self._wait_seconds(account, monotonic())
            asyncio.get_running_loop().call_later(max(0.0, wait_seconds), self._start_next, account)

    def _start_next(self, account: _Account) -> None:
        """Start the first request of the token that still waits, and plan the next start."""
        while account.waiting:
            first = account.waiting.popleft()
            if not first.done():  # its client has not gone
                first.set_result(None)
                break
        # The request that starts now is charged before this call: it was put in line first.
        asyncio.get_running_loop().call_soon(self._plan_next_start, account)


class _MeteredAwaitable:
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
