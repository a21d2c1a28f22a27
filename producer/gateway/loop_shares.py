"""The share of each token in the time of the event loop, which runs one step of one request at a time.

`shares.py` bounds numbers instead: the requests, streams and threads that a token has at once.

A token that has used more than its share of the last moment waits with its next request, or its next piece of
a body, while those of others are served. A token that is alone may use the whole time.

A token is heavy if it has many requests under way, or uses much of the loop, and more of it than the active
tokens do on average. The connections of heavy tokens are in the background, behind those of the others, the
light tokens. The requests under way count too, because a token that has to wait uses little time.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Generator
from dataclasses import dataclass, field
from math import exp, inf
from time import monotonic
from types import coroutine
from typing import Any, Protocol

from millpond.producer.gateway.priority_selector import BackgroundThrottle, SocketPriority

#: The time that a token may use ahead of its share.
AHEAD_SECONDS = 0.01
#: A token is active, and takes part in the sharing, for this time after a request.
ACTIVE_SECONDS = 1.0
#: The active tokens are counted again, and the heavy ones among them found, after this time.
_RECOUNT_SECONDS = 0.1
#: A token with at most this many requests under way, and at most this part of the loop's time, is light.
MANY_REQUESTS, MUCH_TIME = 16, 0.2
#: A refused request of a heavy token is charged for this time of the loop, beside the time that it took,
#: unless the token has to wait for `MOST_OWED_SECONDS` already.
REFUSAL_SECONDS, MOST_OWED_SECONDS = 0.005, 1.0
#: A heavy token stays heavy for at least this time.
HEAVY_SECONDS = 1.0
#: The account of all requests without a known token. No token has this name.
UNAUTHENTICATED = ""


class GatewayConnection(Protocol):
    """A connection whose socket has a priority."""

    def set_priority(self, priority: SocketPriority) -> None:
        """Set the priority of the connection's socket."""


@dataclass(slots=True, eq=False)
class _Account:
    """The use of the loop by one token. All times are those of the monotonic clock, in seconds."""

    #: When the token has paid for its use by waiting. A request may start `AHEAD_SECONDS` before.
    paid_at: float = 0.0
    last_request_at: float = 0.0
    #: The requests that wait for their start, and whether a timer is set for the first of them.
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    is_timed: bool = False
    #: The time used since the last count, and the time used before, which fades.
    used_seconds: float = 0.0
    faded_seconds: float = 0.0
    #: The number of requests under way.
    requests: int = 0
    #: The time until which the token is heavy. Infinity: always, for requests without a known token.
    heavy_until: float = 0.0
    #: The connections in the foreground, and the numbers of the light requests under way.
    foreground: set[GatewayConnection] = field(default_factory=set)
    light_requests: set[int] = field(default_factory=set)

    def is_heavy(self, now: float) -> bool:
        """True if the connections of the token belong in the background."""
        return self.heavy_until > now

    def fade_used(self, factor: float) -> float:
        """Begin a new count. Return the seconds that were used before.

        Those that were used before the last count are multiplied by a factor, at every count again.
        """
        self.faded_seconds = self.faded_seconds * factor + self.used_seconds
        self.used_seconds = 0.0
        return self.faded_seconds


class LoopShares:
    """Shares the time of one event loop among tokens. Reports light requests to the throttle."""

    def __init__(self, background: BackgroundThrottle | None = None) -> None:
        self._background = background or BackgroundThrottle()
        self._accounts: dict[str, _Account] = {UNAUTHENTICATED: _Account(heavy_until=inf)}
        self._active_count, self._counted_at = 1, 0.0

    def begin_request(self, token: str, connection: GatewayConnection | None) -> int | None:
        """Count a request of a token, and set the priority of its connection.

        Return the number of a request of a light token, which slows down the background. Return None for a
        request of a heavy token. `connection` is None if the server does not name it.
        """
        account = self._account_of(token)
        account.requests += 1
        if account.is_heavy(monotonic()):
            if connection is not None:
                connection.set_priority(SocketPriority.HEAVY)
            return None
        if connection is not None:
            connection.set_priority(SocketPriority.FOREGROUND)
            account.foreground.add(connection)
        number = self._background.begin_light_request()
        account.light_requests.add(number)
        return number

    def end_request(self, token: str, light_request: int | None) -> None:
        """Count the end of a request, by the number that `begin_request` returned."""
        account = self._account_of(token)
        account.requests -= 1
        if light_request is not None:
            account.light_requests.discard(light_request)
            self._background.end_light_request(light_request)

    def forget_connection(self, token: str, connection: GatewayConnection) -> None:
        """Forget a connection that has ended, or has another token now."""
        self._account_of(token).foreground.discard(connection)

    async def wait_turn(self, token: str) -> None:
        """Wait until a request of the token may start. Requests of one token start in the order of arrival.

        Return at once if the token is within its share and no earlier request of it waits.
        """
        now = monotonic()
        account = self._account_of(token)
        account.last_request_at = now
        if not account.waiting and self._wait_seconds(account, now) <= 0:
            return
        turn = asyncio.get_running_loop().create_future()
        account.waiting.append(turn)
        if not account.is_timed:
            self._plan_next_start(account)
        await turn

    async def run_metered(self, token: str, call: Awaitable[None]) -> None:
        """Await a call, and charge the loop's time of each of its steps to the token."""
        await self._run_steps(token, call)

    @coroutine
    def _run_steps(self, token: str, call: Awaitable[None]) -> Generator[Any, Any, None]:
        """Run a call step by step. An exception from outside, as of a cancellation, is thrown into it."""
        steps: Any = call.__await__()
        error: BaseException | None = None
        while True:
            began = monotonic()
            try:
                future = steps.send(None) if error is None else steps.throw(error)
            except StopIteration:
                return
            finally:
                self.charge_seconds(token, monotonic() - began)
            try:
                error = None
                yield future
            except BaseException as raised:
                error = raised

    def charge_seconds(self, token: str, seconds: float) -> None:
        """Charge time of the loop to a token. It waits that long for each active token before it is paid."""
        account, now = self._account_of(token), monotonic()
        account.used_seconds += seconds
        account.paid_at = max(account.paid_at, now - seconds) + seconds * self._count_active(now)

    def charge_refusal(self, token: str) -> None:
        """Charge a heavy token `REFUSAL_SECONDS` for a refused request, until it owes `MOST_OWED_SECONDS`."""
        account, now = self._account_of(token), monotonic()
        if account.is_heavy(now) and account.paid_at < now + MOST_OWED_SECONDS:
            account.paid_at = max(account.paid_at, now) + REFUSAL_SECONDS * self._count_active(now)

    def _account_of(self, token: str) -> _Account:
        """Return the account of a token. The first call for a token makes it."""
        account = self._accounts.get(token)
        if account is None:
            account = self._accounts[token] = _Account()
        return account

    def _count_active(self, now: float) -> int:
        """Return the number of active tokens, counted at most ten times a second. Marks the heavy ones."""
        if now - self._counted_at > _RECOUNT_SECONDS:
            fading = exp((self._counted_at - now) / ACTIVE_SECONDS)
            self._counted_at = now
            since = now - ACTIVE_SECONDS
            active = [
                account
                for account in self._accounts.values()
                if account.waiting or account.requests or account.last_request_at > since
            ]
            self._active_count = len(active)
            self._mark_heavy([account for account in active if account.heavy_until < inf], fading, now)
        return max(1, self._active_count)

    def _mark_heavy(self, active: list[_Account], fading: float, now: float) -> None:
        """Move the heavy ones of the active tokens to the background. A token that is alone becomes light."""
        if not active:
            return
        used = [account.fade_used(fading) for account in active]
        many_requests = max(MANY_REQUESTS, sum(account.requests for account in active) / len(active))
        much_time = max(MUCH_TIME * ACTIVE_SECONDS, sum(used) / len(active))
        for account, seconds in zip(active, used, strict=True):
            if len(active) > 1 and (account.requests > many_requests or seconds > much_time):
                account.heavy_until = now + HEAVY_SECONDS
                self._move_to_background(account)
            elif len(active) == 1:
                account.heavy_until = 0.0

    def _move_to_background(self, account: _Account) -> None:
        """Move the connections of a token to the background, and count its requests as light no more."""
        for connection in account.foreground:
            connection.set_priority(SocketPriority.HEAVY)
        account.foreground.clear()
        for number in account.light_requests:
            self._background.end_light_request(number)
        account.light_requests.clear()

    def _wait_seconds(self, account: _Account, now: float) -> float:
        """Return the seconds until a request of the token may start, 0 or less if it may start now."""
        wait_seconds = account.paid_at - AHEAD_SECONDS - now
        if account.is_heavy(now) and self._background.has_light_request:
            return max(wait_seconds, self._background.rest_seconds())
        return wait_seconds

    def _plan_next_start(self, account: _Account) -> None:
        """Set the timer for the first waiting request of the token, if there is one."""
        account.is_timed = bool(account.waiting)
        if account.is_timed:
            wait_seconds = self._wait_seconds(account, monotonic())
            asyncio.get_running_loop().call_later(max(0.0, wait_seconds), self._start_next, account)

    def _start_next(self, account: _Account) -> None:
        """Start the first request of the token whose client is still there, and plan the next start."""
        while account.waiting:
            turn = account.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        # The loop runs the started request first, so it is charged when the next start is planned.
        asyncio.get_running_loop().call_soon(self._plan_next_start, account)
